"""The texts of tables: each once, some held out by their content."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.rows import Columns, read_rows
from embedcache.tables.stream import stored

HELD_OUT = 0.05  # share of the texts
FEWEST = 50  # texts of which to learn or to measure anything


@dataclass(frozen=True)
class Corpus:
    """Different texts.

    Attributes:
        train: to learn from. held_out: to measure on. rows: of the tables. blank: of them, without a text.
        digest: of all texts, in their order.
    """

    train: list[str]
    held_out: list[str]
    rows: int
    blank: int
    digest: str

    @property
    def repeated(self) -> int:
        """Rows whose text had been there before."""
        return self.rows - self.blank - len(self.train) - len(self.held_out)


def read_corpus(inputs: Sequence[Any], text: str, **reading: Any) -> Corpus:
    """Read all texts, into memory.

    Which texts are held out follows from each text alone: more rows, another order or another file change nothing for a
    text, so that none that was held out once is learnt from later.

    Args:
        inputs: Tables; "-" is standard input.
        text: The column of texts.
        reading: encoding, separator and sheet.

    Raises:
        EmbedcacheError: They cannot be read, or there are too few texts.
    """
    found: dict[bytes, tuple[float, str]] = {}
    rows = blank = 0
    whole = blake2b(digest_size=16)
    with ExitStack() as ends:
        tables = [ends.enter_context(stored(table)) for table in inputs]
        for part in read_rows(tables, Columns(text), **reading):
            for one in part.texts.to_pylist():
                rows += 1
                if not one.strip():
                    blank += 1
                    continue
                key = blake2b(one.encode(), digest_size=16).digest()
                if key not in found:
                    found[key] = _place(key), one
                    whole.update(key)
    if len(found) < FEWEST:
        raise EmbedcacheError(
            f"{', '.join(map(str, inputs))}: {len(found)} different texts, and adapt needs {FEWEST} or more "
            "(thousands to be worth it)"
        )
    # Of few texts the first by their place, so that there is something to measure on.
    limit = max(HELD_OUT, min(place for place, _ in found.values()))
    return Corpus(
        train=[one for place, one in found.values() if place > limit],
        held_out=[one for place, one in found.values() if place <= limit],
        rows=rows,
        blank=blank,
        digest=whole.hexdigest(),
    )


def _place(key: bytes) -> float:
    """From 0 to 1, evenly."""
    return int.from_bytes(blake2b(key, digest_size=8, person=b"held out").digest(), "big") / 2**64
