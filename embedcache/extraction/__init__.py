"""A table and an encoder in, a cache out.

Files, in the order in which to read them:

    job           The door: read the table, find what is new, let the encoder fill the cache
    read_input    Read the whole input once: label codes into memory, texts and their hashes into unnamed files
    before        What an earlier run left at the place of a cache
    columns       Which columns of the input a cache keeps: those asked for, and those that it already has
    vectors       Which vectors a pass makes: as asked, as the cache has them, or as the model's authors prescribe
    encoders      Which encoder a pass uses, and where it runs
    local         The encoders of this process, one per device, as workers of a pipeline
    pipeline      Send windows of the file through several workers at once, tokenizing ahead of each encoder
    shards        Parts of one input, for batch schedulers: each job extracts its part into its own cache
    token_states  Which texts of a pass lack their token states, and room for these
    merge_states  Join the token states of all shards
    merge         Join the caches of all shards of one input: every row in its place, every vector copied
    ray_cluster   Connect to a Ray cluster, or start one on this machine
    ray_workers   The encoders of a pass as actors of a Ray cluster, on one machine or many
"""
