"""What every room may use and that knows nothing of the others.

Files, in the order in which to read them:

    whole_file        Where a command's output goes: a file that appears whole or not at all
    whole_folder      Folders that appear whole or not at all, take another's place in one step
    durable           What has a name is on the disk: flushed before it takes the name, and the name after
    open_files        Open files by their number: read, written and locked as POSIX does, on Windows too
    lock              One writer at a time: an advisory lock on a hidden file
    journal           What a long command has finished, kept beside its output until that is whole
    resume            Long work in parts: what is finished is saved beside the output
    texts             Texts as people hand them over: one, a list, a column of pandas, polars or Arrow, an array
    labels            Labels as a cache has them: codes in which -1 says that a row has none
    label_names       Names of classes that people mix up: alike in print, or one that stands for "not labelled"
    reading           What an encoder reads of texts and what it does not: tokens beyond its length
    frames            Results as tables: an Arrow table
    outputs           Outputs of an encoder, and several of them side by side: cls+mean, -1+-4
    int8_rows         Vectors as int8 with a scale for each row, decoded where they are read
    tensors           Safetensors files: errors of the disk while one is written come as OSError
    checked           JSON from files that may be damaged or made to do harm: bounded in size and depth
    encoder_schema    What the JSON on an encoder may hold: in a cache's attributes, a run, an index
    digest            The SHA-256 of a file's content
    signed            Documents that embedcache writes into a user's folder: they end with a digest
    display           Texts and small tables that are safe to show: in a terminal, on a page, in a notebook
    screen            Tables and texts for a terminal or a pipe: what every report on the screen is made of
    near_identical    Texts that differ in next to nothing: case, punctuation, blanks, a word in a long one
    progress          What a long job reports while it works: how far it is, and what a user should know
    times             How long the phases of a job took
    machine           What this process may use of the machine: cores and memory
    devices           How a device is written, wherever one may be named: auto, cpu, cuda or cuda:N
    packages          Packages that an installation may do without, and the extra that brings each
    native_library    Our own C libraries: where one lies, and whether it loads
    guard             One line in place of silence where a file is cut short while it is mapped
    reaper            Ends what a process has started once that process is gone, however it ended: SIGKILL too
    docstrings        Packages that read their own docstrings, under ``python -OO``, which leaves docstrings out
    callable_module   Modules that can be called: `ec.search(...)` is a public function
"""
