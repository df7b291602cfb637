"""The formats of tables, read and written: a class each, and one line here.

Files, in the order in which to read them:

    base           What every format of table can do
    values         Values of a table's cells: as text, as JSON, as Arrow columns of one type
    writer         What writes a table
    delimited      .csv and .tsv: records of cells between separators
    plain_text     .txt: a text a line
    blocks         Blocks of text that C code parses at once
    json_lines     .jsonl: a JSON object a line
    json_array     .json: an array of objects
    parquet        .parquet
    arrow_ipc      .arrow and .feather: Arrow's own files, and its streams, as Hugging Face's datasets keep them
    arrow_table    Tables in memory, as Arrow has them: no file, and so no suffix
    arrow_writer   Columns of a table into a file that pyarrow writes
    arrow_values   Columns of Arrow as rows have them: strings as they are, all else as Python values
    sqlite         .sqlite: a table of a database, the only one, or the one that is named
    excel          .xlsx: the first sheet of a workbook, or the one that is named; needs openpyxl
"""

from __future__ import annotations

from embedcache.tables.formats.arrow_ipc import ArrowIpc, Feather
from embedcache.tables.formats.base import Format
from embedcache.tables.formats.delimited import Csv, Tsv
from embedcache.tables.formats.excel import Excel
from embedcache.tables.formats.json_array import JsonArray
from embedcache.tables.formats.json_lines import JsonLines
from embedcache.tables.formats.parquet import Parquet
from embedcache.tables.formats.plain_text import PlainText
from embedcache.tables.formats.sqlite import Sqlite
from embedcache.tables.packing import PACKINGS

FORMATS: dict[str, Format] = {
    suffix: format
    for format in (
        Csv(),
        Tsv(),
        JsonLines(),
        JsonArray(),
        Parquet(),
        ArrowIpc(),
        Feather(),
        Excel(),
        Sqlite(),
        PlainText(),
    )
    for suffix in format.suffixes
}


def in_words(*, written: bool = False) -> str:
    """The formats that are read, or those that are ``written``, by the first suffix of each, for a sentence of help."""
    found = [format for format in dict.fromkeys(FORMATS.values()) if not written or format.writer is not None]
    texts = [format.suffixes[0] for format in found if format.is_text]
    *others, last = [format.suffixes[0] for format in found if not format.is_text]
    return f"{', '.join(texts)} (also {', '.join(PACKINGS)}), {', '.join(others)} or {last}"
