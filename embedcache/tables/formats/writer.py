"""What writes a table: the columns it has, and what every format does with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class TableLayout:
    """The columns of a table that is to be written.

    Attributes:
        names: of the columns, in order.
        types: of each the Arrow type; None: only formats without types can be written.
        metadata: of the Arrow schema, kept in formats that have one.
    """

    names: list[str]
    types: list[pa.DataType] | None = None
    metadata: dict[bytes, bytes] = field(default_factory=dict)


class TableWriter(ABC):
    """Writes a table into an open binary file, batch by batch, and only ever at its end.

    Attributes:
        has_types: it needs ``TableLayout.types``.
        nests: a cell may be an object or a list of any kind.
        may_repeat: two columns may have one name.
    """

    has_types = False
    nests = False
    may_repeat = False

    def __init__(self, file: BinaryIO, layout: TableLayout) -> None:
        self.file, self.layout = file, layout

    @abstractmethod
    def write(self, columns: Sequence[Any]) -> None:
        """Rows, as a column for each name: an Arrow array or a list of values, all of one length."""

    def close(self) -> None:  # noqa: B027 - most formats have no end
        """The end of the table. The file stays open."""

    def abandon(self) -> None:  # noqa: B027
        """In place of ``close`` where something failed: what was written must not look whole."""
