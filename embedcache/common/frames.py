"""Results as tables: an Arrow table, and from it a DataFrame of pandas or of whatever else reads Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Tabular:
    """Something with ``to_arrow``: it gets a DataFrame from it, and can be given to ``polars.DataFrame`` as it is."""

    def to_arrow(self) -> pa.Table:
        """A pyarrow.Table."""
        raise NotImplementedError

    def to_pandas(self) -> pd.DataFrame:
        """A pandas.DataFrame with the columns of ``to_arrow``.

        Raises:
            EmbedcacheError: pandas is not installed.
        """
        return frame(self.to_arrow())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Arrow's PyCapsule interface, by which polars, DuckDB and others read it without a copy."""
        capsule: object = self.to_arrow().__arrow_c_stream__(requested_schema)
        return capsule


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as a DataFrame; names such as classes become plain strings, to which any other can be assigned.

    Raises:
        EmbedcacheError: pandas is not installed.
    """
    import pyarrow as pa

    try:
        import pandas  # noqa: F401
    except ImportError:
        raise EmbedcacheError(
            "a DataFrame needs pandas, which is not installed: pip install pandas (to_arrow() does without)"
        ) from None
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
    return table.to_pandas()


def free_names(taken: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """name -> the name that its column gets: its own, or with _2, _3 ... where that stands for something else."""
    used, found = set(taken), {}
    for name in names:
        free, number = name, 2
        while free in used:
            free, number = f"{name}_{number}", number + 1
        used.add(free)
        found[name] = free
    return found


def label_column(values: Sequence[str | Sequence[str] | None]) -> pa.Array:
    """Labels as Arrow strings, or lists of strings where there is a list; None is null."""
    import pyarrow as pa

    lists = any(isinstance(value, (list, tuple)) for value in values)
    return pa.array(values, pa.list_(pa.string()) if lists else pa.string())


def arrow_table(columns: Mapping[str, Any]) -> pa.Table:
    """A table of Arrow arrays, or of lists of which Arrow sees the type."""
    import pyarrow as pa

    return pa.table({name: values if hasattr(values, "type") else pa.array(values) for name, values in columns.items()})


def refuse_frame(given: Any, function: str) -> None:
    """Where a file is to be named. Raises EmbedcacheError for a data frame or an Arrow table."""
    if hasattr(given, "columns"):
        raise EmbedcacheError(
            f"{function} reads files, not a {type(given).__name__}: write it first, frame.to_parquet('texts.parquet'), "
            "and name that file"
        )
