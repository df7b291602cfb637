"""The formats that are read: a class each, and one line here."""

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
