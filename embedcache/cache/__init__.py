"""The cache file: vectors, texts, labels in one HDF5 file that no crash can spoil. Never imports torch.

Read with ``open_cache``, check with ``verify``; only extraction/ creates and fills files (create.py). The format and
its reasons are in docs/cache-file.md.

Files, in the order in which to read them:

    layout           What an embedcache file is made of: names, types, block spans and the seal over its attributes
    file             Open a cache for reading: everything is a view into one read-only memory map, nothing is copied
    side_by_side     Vectors of several stored outputs side by side, in memory
    create           Make a cache file: structure first, then space, then what is known before encoding
    fill             Fill the missing blocks of a file: vectors that exist somewhere are copied
    reuse            Vectors by content: which row of which file already holds the vector of a text
    fingerprint      What makes two vectors of the same text comparable: a readable identity, its digest
    stored_rows      Vectors on their way into a file: in int8 a row has its scale behind it
    checksums        Checksums of blocks of 1024 rows: what a block binds, and which blocks hold
    labels           Label values as codes: collected in batches, classes sorted at the end
    label_columns    The label columns of a cache: those of the file, and over them what people gave since
    strings          Texts as one run of UTF-8 bytes and the offsets where each begins: collected in batches
    tokens           How many tokens each text has, and how many of them the encoder does not know
    spool_file       Data that is collected before the cache has a place for it: in a file without a name
    where            Which rows of a cache may be found: those with a text that meet conditions like label=positive
    where_grammar    The language of --where: "label=positive and year>=2010 and not (genre=war or genre=horror)"
    token_states     What the last layers read of every row's tokens: ragged, read when it is asked for
    state_files      The two files of a cache's token states, opened for reading
    state_writer     Make and grow the files of token states, and write states into them in place
    notes            What a user should know of the data in a cache before trusting what is made of them
    frames           A cache's rows as an Arrow table: texts, codes and vectors stay where they are
    remote_fill      Fill windows of one file from other processes and machines: they write vectors
    lock             One writer of a cache at a time
    map_file         Map a file that a writer may replace at any moment
    hdf5_reader      Reads as much of the HDF5 format as a cache needs, and no more: links, attributes
    hdf5_structure   Read the HDF5 structure of a file that may be broken or hostile
    hdf5_bytes       What the HDF5 reader reads with: errors, bytes in a row, little-endian numbers, the checksum
"""

from __future__ import annotations

from embedcache.cache.checksums import VerifyReport, verify
from embedcache.cache.file import Cache, open_cache

__all__ = ["Cache", "VerifyReport", "open_cache", "verify"]
