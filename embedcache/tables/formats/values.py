"""Values of a table's cells: as text, as JSON, as Arrow columns of one type."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from embedcache.tables.formats.arrow_values import python_values
from embedcache.tables.formats.base import ABSENT

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"  # the kind of values that have no type in common: text where they are strings, else JSON


def listed(column: Any) -> list[Any]:
    """The values of a column, an Arrow array or a list, as Python has them."""
    return column if isinstance(column, list) else python_values(column)


def cell(value: Any) -> str:
    """A value as the cell of a CSV: strings as they are, nothing where there is none, numbers and lists as JSON."""
    if type(value) is str:
        return value if value.isascii() else _encodable(value)
    if value is None or value is ABSENT or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, int, list, tuple, dict)):
        return json_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)  # numbers in as few digits as say which, dates and times as ISO 8601


def json_text(value: Any) -> str:
    """JSON of a value that JSON or Arrow gave; NaN and infinities are null, what JSON has no type for is text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=_plain)
    return text if text.isascii() or _is_encodable(text) else json.dumps(_finite(value), default=_plain)


def json_value(value: Any) -> Any:
    """A value with JSON types alone; None where there is none."""
    return None if value is ABSENT else json.loads(json_text(value))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _is_encodable(text: str) -> bool:
    try:
        return bool(text.encode()) or True
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        return False


def _encodable(text: str) -> str:
    return text if _is_encodable(text) else text.encode("utf-8", "replace").decode()


class Kinds:
    """Finds the Arrow type of a column whose values come in lists, batch by batch."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._items: set[str] = set()

    def see(self, values: Sequence[Any]) -> None:
        """Values as the format gave them, a list."""
        self._kinds |= _kinds_of(values)
        if "list" in self._kinds:
            self._items |= _kinds_of([item for value in values if isinstance(value, list) for item in value])

    @property
    def is_mixed(self) -> bool:
        """Whether the values have no type in common, so that some of them become JSON in a column of strings."""
        return _common(self._kinds) == TEXT or ("list" in self._kinds and self._item == TEXT)

    @property
    def arrow_type(self) -> pa.DataType:
        import pyarrow as pa

        types = {
            "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string(), TEXT: pa.string(),
            "date": pa.date32(), "datetime": pa.timestamp("us"),
        }  # fmt: skip
        common = _common(self._kinds)
        if common != "list":
            return types[common]
        return pa.string() if self._item == TEXT else pa.list_(types[self._item])

    @property
    def _item(self) -> str:
        found = _common(self._items)
        return TEXT if found == "list" else found


NAMES = {str: "str", bool: "bool", float: "float", date: "date", list: "list"}


def _kinds_of(values: Sequence[Any]) -> set[str]:
    types = set(map(type, values)) - {type(None), type(ABSENT)}
    found = {NAMES.get(one, TEXT) for one in types - {int, datetime}}
    if int in types:
        found.add("int" if all(-(2**63) <= value < 2**63 for value in values if type(value) is int) else TEXT)
    if datetime in types:
        found.add("datetime" if all(value.tzinfo is None for value in values if type(value) is datetime) else TEXT)
    return found


def _common(kinds: set[str]) -> str:
    """The kind that holds values of all these kinds."""
    for kind, parts in {"str": set(), "float": {"int"}, "datetime": {"date"}}.items():
        if kinds <= {kind, *parts} and (kind in kinds or not kinds):
            return kind
    return next(iter(kinds)) if len(kinds) == 1 else TEXT


def arrow_column(column: Any, kind: pa.DataType) -> pa.Array:
    """A column as Arrow has it, of the type that Kinds found for it; an array as it is."""
    import pyarrow as pa

    if not isinstance(column, list):
        return column
    values = [None if value is ABSENT else value for value in column]
    if pa.types.is_string(kind):
        values = [value if value is None or type(value) is str else cell(value) for value in values]
    elif pa.types.is_floating(kind):
        values = [value if value is None else float(value) for value in values]
    elif pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
        values = [value and [item if item is None else float(item) for item in value] for value in values]
    elif pa.types.is_timestamp(kind):
        values = [datetime.combine(value, time()) if type(value) is date else value for value in values]
    return pa.array(_clean(values), kind)


def _clean(values: Sequence[Any]) -> Sequence[Any]:
    """Without half surrogate pairs, which Arrow refuses."""
    try:
        if any(isinstance(value, str) and not value.isascii() for value in values):
            "".join(value for value in values if isinstance(value, str)).encode()
        elif any(isinstance(value, list) for value in values):
            "".join(item for value in values for item in value or () if isinstance(item, str)).encode()
    except UnicodeEncodeError:
        return [
            [_encodable(item) if isinstance(item, str) else item for item in value]
            if isinstance(value, list)
            else _encodable(value)
            if isinstance(value, str)
            else value
            for value in values
        ]
    return values
