"""A table and an encoder in, a cache out.

Files, in the order in which to read them:

    job           The door: read the table, plan what is new, let the encoder fill the cache
    read_input    The whole input, read once: its label codes in memory, texts and their hashes in unnamed files
    columns       Which columns of the input a cache keeps: those asked for, and those that it already has
    vectors       Which vectors a pass makes, and of what: as asked, as the model's authors say, as the cache has it
    encoders      Which encoder a pass is made with, and on what it runs
    local         The encoders of this process, one for each device, as workers of a pipeline
    pipeline      Windows of the file through several workers at once: tokenizing ahead of each encoder
    shards        Parts of one input, for batch schedulers: each job extracts its part into a cache of its own
    merge         Join the caches of all shards of one input: every row in its place, every vector copied
    ray_cluster   A connection to Ray: one that is started here, or one that runs already; quiet
    ray_workers   The encoders of a pass as actors of a Ray cluster: on this machine, or on many
"""
