"""The command line, a file a group of commands; show/ prints what they found.

Files, in the order in which to read them:

    common       What all commands share: how they fail, how they print JSON
    process      What the command line sets right about its own process before a command runs:
                 streams
    config       Defaults for the options of every command, from embedcache.toml
    completion   Completion: what a shell reads to complete embedcache's commands
    types        Types of the command line's options: numbers, lists and ranges, so that a slip
                 is wrong usage
    progress     Progress bars and tables on a terminal; silent where stderr is no terminal
    extract      Extract: the command that makes a cache
    merge        Merge: the command that joins the caches of all shards
    info         Info and verify: the commands that look at a cache
    train_head   Train-head: the command that makes a run
    predict      Predict: the command that labels texts, tables and caches
    evaluate     Evaluate: the command that scores runs on rows whose labels are known
    export       Export: the command that writes a run as one model
    report       Report: what a run came to, as one page, and on the screen
    index        Index: the command that builds what search reads
    search       Search: the command that finds neighbours
    audit        Audit: the command that looks for what is wrong with the rows themselves
    doctor       Doctor: the command that looks at the machine
    serve        Serve: the command that shows a cache and a run in the browser
    show/        What people read on the screen
"""
