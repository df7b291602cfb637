"""Tables that are written, in the format that the output's name says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from embedcache.common.frames import free_names
from embedcache.common.whole_file import Output, output_target
from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import FORMATS
from embedcache.tables.formats.writer import TableLayout, TableWriter
from embedcache.tables.packing import PACKINGS
from embedcache.tables.read import suffixes
from embedcache.tables.stream import STREAM

__all__ = ["WRITERS", "OutputFormat", "TableLayout", "TableWriter", "output_format"]

WRITERS: dict[str, type[TableWriter]] = {
    suffix: format.writer for suffix, format in FORMATS.items() if format.writer is not None
}


@dataclass(frozen=True)
class OutputFormat:
    """What an output's name says: the format, and the compression around it ("" for none)."""

    writer: type[TableWriter]
    compression: str = ""

    @contextmanager
    def open(self, output: Output, layout: TableLayout) -> Iterator[TableWriter]:
        """A writer of a whole table into ``output``. Raises EmbedcacheError where that cannot be written."""
        with ExitStack() as ends:
            file = ends.enter_context(output.binary())
            if self.compression:
                file = ends.enter_context(PACKINGS[self.compression].packed(file))
            writer = self.writer(file, layout if self.writer.may_repeat else _different(layout))
            try:
                yield writer
            except BaseException:
                writer.abandon()
                raise
            writer.close()


def _different(layout: TableLayout) -> TableLayout:
    """With names that are all different: of those that are alike, the second gets _2."""
    names: list[str] = []
    for name in layout.names:
        names.append(free_names(names, [name])[name])
    return replace(layout, names=names)


def output_format(path: str | Path) -> OutputFormat:
    """By the name alone, before anything is done. Raises EmbedcacheError for a name of no known format."""
    compression, suffix = suffixes(Path(path))
    writer = WRITERS.get(suffix)
    if writer is not None and (not compression or FORMATS[suffix].is_text):
        return OutputFormat(writer, compression)
    if output_target(path) is None:
        return OutputFormat(WRITERS[STREAM])
    text = [suffix for suffix in WRITERS if FORMATS[suffix].is_text]
    ending = suffix + compression
    what = f"tables are not written as '{ending}'" if ending else "nothing behind its name says the format"
    raise EmbedcacheError(
        f"{path}: {what}: name one of {', '.join(WRITERS)}, or with "
        f"{', '.join(PACKINGS)} after it one of {', '.join(text)}"
    )
