"""The command line, a file a command; show/ prints what they found.

Files, in the order in which to read them:

    common       How commands fail and print JSON, and the options that several have
    process      What is set up in the process before a command runs: streams, threads, arguments
    config       Defaults for the options of every command, from embedcache.toml
    completion   What a shell reads to complete commands; what completes files and columns
    types        Types of the options: numbers, lists, ranges
    run_options  What train-head and finetune share: sweeps, the split, what chooses
    progress     Progress bars and tables on a terminal; silent where stderr is no terminal
    extract      Make a cache
    import_vectors  Make a cache of vectors that exist; write those of a cache
    merge        Join the caches of all shards
    adapt        Train a masked language model on unlabelled texts
    info         Look at a cache: info and verify
    train_head   Make a run
    finetune     Make a run whose head comes with layers of the encoder
    predict      Label texts, tables and caches
    zero_shot    Label tables and caches by what the labels are called
    ladder       Every way to learn a column, side by side
    evaluate     Score runs on rows whose labels are known
    drift        Compare new rows with those of a cache
    export       Write a run as one model
    report       The results of a run, as one page and on the screen
    index        Build what search reads
    search       Find neighbours
    audit        Look for what is wrong with the rows themselves
    next_rows    Say which rows are worth labelling next
    labels       Take labels of people out of the journal, and put others into it
    doctor       Look at the machine
    serve        Show a cache and runs in the browser
    label        Label a cache in the browser
    serving      The options of commands that serve, and what they print
    show/        What people read on the screen, a file a command
"""
