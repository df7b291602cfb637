"""Vectors that exist: from other tools into a cache, and from a cache to other tools.

Files, in the order in which to read them:

    job        The door in: vectors that exist, from anywhere, into a cache like any other
    read       From a file, a frame or an array to checked vectors
    formats/   The formats of files of vectors, a file each
    join       Texts, labels, ids and other columns of vectors: from their own file, or from a table beside it
    fill       The vectors of files into a cache, block after block
    write      The door out: the vectors of a cache into a file that others read
"""
