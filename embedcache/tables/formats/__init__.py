"""The formats that are read: a class each, and one line here.

Files, in the order in which to read them:

    base           What every format of table can do
    delimited      .csv and .tsv: records of cells between separators
    plain_text     .txt: a text a line
    blocks         Blocks of text that C code parses at once
    json_lines     .jsonl: a JSON object a line
    json_array     .json: an array of objects
    parquet        .parquet
    arrow_ipc      .arrow and .feather: Arrow's own files, and its streams, as Hugging Face's datasets keep them
    arrow_values   Columns of Arrow as rows have them: strings as they are, all else as Python values
    excel          .xlsx: the first sheet of a workbook, or the one that is named; needs openpyxl
"""

from __future__ import annotations

from embedcache.tables.formats.arrow_ipc import ArrowIpc
from embedcache.tables.formats.base import Format
from embedcache.tables.formats.delimited import Csv, Tsv
from embedcache.tables.formats.excel import Excel
from embedcache.tables.formats.json_array import JsonArray
from embedcache.tables.formats.json_lines import JsonLines
from embedcache.tables.formats.parquet import Parquet
from embedcache.tables.formats.plain_text import PlainText

FORMATS: dict[str, Format] = {
    suffix: format
    for format in (Csv(), Tsv(), JsonLines(), JsonArray(), Parquet(), ArrowIpc(), Excel(), PlainText())
    for suffix in format.suffixes
}
