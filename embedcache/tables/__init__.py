"""Rows of files and of tables in memory: what they hold, how they are packed, and what is wrong with them.

Files, in the order in which to read them:

    source     One input: where it is, how it is packed and encoded
    explain    What is wrong with the bytes of an input file, in one line
    packing    What a file may be packed by: gzip, bzip2, zstd
    read       The door: from a path to the columns that are in the file
    formats/   The formats, read and written, a file each
    decimals   Numbers in cells: with a decimal point, or where all cells of a column show it, a decimal comma
    limits     How long a text may be, and how much of a file is in memory at a time
    memory     Tables in memory, as people hand them over: of pandas, polars, Arrow or datasets, or a list of texts
    remote     Tables at an address that fsspec knows: hf://, s3://, gs://, https:// and others
    stream     Tables that are no files here: standard input, pipes, addresses, frames
    inputs     What a caller names as input: paths, addresses and tables in memory, one or several, or a list of texts
    whole      A whole table: what its columns are, then all of them, batch by batch
    rows       Input files to rows, whatever their format: texts, labels, ids and kept columns, checked
    write      Tables that are written, in the format that the output's name says
"""
