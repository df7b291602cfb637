"""Tables in memory, as people hand them over: of pandas, polars, Arrow or datasets, or a list of texts.

None of these packages is imported here: who has such a table has imported its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedcache.common.frames import Tabular
from embedcache.common.texts import is_missing
from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.values import cell

if TYPE_CHECKING:
    import pyarrow as pa

CAPSULE = "__arrow_c_stream__"  # by which polars, DuckDB and others give their tables as Arrow, without a copy


@dataclass(frozen=True)
class Frame:
    """A table in memory. ``name``: for messages, such as "the DataFrame"; ``arrow``: its columns."""

    name: str
    arrow: pa.Table

    def __str__(self) -> str:
        return self.name

    def __len__(self) -> int:
        return int(self.arrow.num_rows)


def as_frame(given: Any) -> Frame | None:
    """The table that was given, without a copy where Arrow allows it; None for what is no table, such as a path.

    Raises:
        EmbedcacheError: a table that cannot be read as it is: one with several splits, or one that is not there yet.
    """
    import pyarrow as pa

    if isinstance(given, Frame):
        return given
    kind, name = type(given).__name__, f"the {type(given).__name__}"
    package = type(given).__module__.split(".")[0]
    if isinstance(given, Tabular):
        return Frame(name, given.to_arrow())
    if isinstance(given, pa.RecordBatch):
        return Frame(name, pa.Table.from_batches([given]))
    if isinstance(given, pa.Table):
        return Frame(name, given)
    if package == "datasets":
        if "Dict" in kind:
            raise EmbedcacheError(f"a {kind} has several splits: give one of them, such as {_splits(given)}")
        if not hasattr(given, "with_format") or kind.startswith("Iterable"):
            raise EmbedcacheError(f"an {kind} is read once: give a Dataset, such as load_dataset(..., streaming=False)")
        return Frame(name, given.with_format("arrow")[:])
    if package == "pandas" and hasattr(given, "columns"):
        names = [str(one) for one in given.columns]
        return Frame(name, pa.Table.from_arrays([_of_pandas(given.iloc[:, i]) for i in range(len(names))], names))
    if kind == "LazyFrame":
        raise EmbedcacheError("a LazyFrame has no rows yet: give frame.collect()")
    if hasattr(given, CAPSULE) and hasattr(given, "columns"):
        return Frame(name, pa.table(given))
    if isinstance(given, Mapping):
        return Frame("the dict", pa.table({str(key): _listed(values) for key, values in given.items()}))
    if hasattr(given, "columns"):
        raise EmbedcacheError(f"a {kind} of {package} cannot be read: give its to_arrow(), or a table of pandas")
    return None


def of_texts(texts: Sequence[str], column: str = "text") -> Frame:
    """A list of texts as a table of one column."""
    import pyarrow as pa

    try:
        return Frame("the list of texts", pa.table({column: pa.array(texts, pa.large_string())}))
    except UnicodeEncodeError:
        row = next(i for i, text in enumerate(texts) if not _encodable(text))
        raise EmbedcacheError(
            f"the list of texts row {row + 1}: holds half a surrogate pair, which is not a character: remove it"
        ) from None


def _of_pandas(column: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, UnicodeEncodeError):
        return _listed(column.tolist())


def _listed(values: Any) -> Any:
    """Values of any kinds as one Arrow column: as they are if they have a type in common, else as a CSV has them."""
    import pyarrow as pa

    values = list(values)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError):
        texts = [None if is_missing(one) else one if type(one) is str else cell(one) for one in values]
        return pa.array(texts, pa.large_string())


def _splits(given: Any) -> str:
    return ", ".join(f"[{name!r}]" for name in list(given)[:3])


def _encodable(text: Any) -> bool:
    try:
        return bool(str(text).encode()) or True
    except UnicodeEncodeError:
        return False
