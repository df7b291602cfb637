"""Kept columns as the page filters and colours by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.strings import Strings
from embedcache.cache.where import coded
from embedcache.tables.decimals import as_numbers

MOST_VALUES = 200  # that a list to choose from may have
MOST_COLUMNS = 30  # that are looked at
SAMPLE = 20_000  # rows that tell whether nearly every row has a value of its own
LONG = 64  # bytes a value, on average: from there on they are texts, which are not compared


@dataclass(frozen=True)
class KeptValues:
    """What a kept column holds.

    Attributes:
        kind: "classes", few different ``values`` (-> rows); "number", all of them between ``low`` and ``high``;
            "text", anything else.
        codes: int32 [N], the place of each row's value among ``names``; -1 where it is blank.
    """

    kind: Literal["classes", "number", "text"]
    codes: np.ndarray
    names: list[str]
    values: dict[str, int] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None

    @property
    def groups_rows(self) -> bool:
        """Whether colours help: they do not where nearly every row has its own value."""
        return self.kind == "number" or 0 < 2 * len(self.names) <= len(self.codes)


def kept_columns(cache: Cache) -> dict[str, KeptValues]:
    """The first kept columns that are neither the ids nor named as a label column."""
    others = (cache.id_column, *cache.label_names)
    names = [name for name in cache.column_names if name not in others]
    return {name: _look_at(cache.column(name)) for name in names[:MOST_COLUMNS]}


def _look_at(strings: Strings) -> KeptValues:
    first = coded(Strings(strings.data, strings.offsets[: SAMPLE + 1]))[1]
    each_its_own = 2 * len(first) > min(SAMPLE, len(strings)) > MOST_VALUES and as_numbers(first) is None
    if len(strings.data) > LONG * len(strings) or each_its_own:
        return KeptValues("text", np.full(len(strings), -1, np.int32), [])
    return _kept(*coded(strings))


def _kept(codes: np.ndarray, names: list[str]) -> KeptValues:
    blank = np.array([not name.strip() for name in names], bool)
    place = np.where(blank, -1, np.cumsum(~blank) - 1).astype(np.int32)
    codes, names = place[codes], [name for name in names if name.strip()]
    numbers = as_numbers(names)
    if numbers is not None and len(names) > 10:
        return KeptValues("number", codes, names, low=float(numbers.min()), high=float(numbers.max()))
    if not names or len(names) > MOST_VALUES:
        return KeptValues("text", codes, names)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return KeptValues("classes", codes, names, {names[i]: int(counts[i]) for i in order})
