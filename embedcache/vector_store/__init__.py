"""A folder that holds the vectors of one encoder and grows call by call: what ``ec.cached`` gives.

Files, in the order in which to read them:

    job      The door: a drop-in for SentenceTransformer.encode that computes only new texts
    store    The vectors of one encoder in a folder: a cache, and a log of what is newer than it
    log      New texts and vectors, behind one another in one file
"""
