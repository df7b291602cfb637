"""The colours of the map's points: which group each row is in, by a label or kept column, while people may label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.labels import unlabelled
from embedcache.serve.kept import KeptValues
from embedcache.tables.decimals import as_numbers

if TYPE_CHECKING:
    from embedcache.serve.service import Service

MOST_GROUPS = 8  # that have a colour each; the rest share one
SCALE_BINS = 7  # of a column of numbers
Colored = tuple[list["MapGroup"], np.ndarray]


@dataclass(frozen=True)
class MapGroup:
    """Points of one colour.

    Attributes:
        role: "class", "bin" (of numbers, in order), "several", "other" or "none".
        place: of a class, the number of its colour and shape.
    """

    name: str
    rows: int
    role: str
    place: int | None = None


class MapColors:
    """The groups of each column by which points are coloured; those of labels as people have given them by now."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._source: Any = None
        self._labels: dict[str, Colored] | None = None
        cache, kept = service.cache, service.kept
        self._kept = {name: color_groups(cache, name, one) for name, one in kept.items() if one.groups_rows}

    def now(self) -> Mapping[str, Colored]:
        """Column -> its groups, and which of them each row is in."""
        service, cache = self._service, self._service.cache
        if service.labelling is not None:
            service.labelling.tell_labels()
        source = cache.source
        if self._labels is None or source is not self._source:
            self._labels = {name: color_groups(cache, name, order=self._order(name)) for name in cache.label_names}
            self._source = source
        return {**self._labels, **self._kept}

    def _order(self, column: str) -> Sequence[str]:
        """The classes of the column that people label, in the order of their buttons; new ones come last."""
        session = self._service.labelling
        return () if session is None or session.arrays.column != column else list(session.arrays.classes)


def color_groups(
    cache: Cache, column: str, kept: KeptValues | None = None, order: Sequence[str] = ()
) -> tuple[list[MapGroup], np.ndarray]:
    """The groups of a label column, or of a kept one, and which of them each row is in, uint8 [N].

    Its most frequent classes, then "other" and "no label"; of many numbers, bins of about equally many rows. order: of
    all classes, the order that gives each its colour; without it those that are shown are numbered.
    """
    none = "no label" if kept is None else "blank"
    codes, classes = cache.labels(column) if kept is None else (kept.codes, kept.names)
    missing = unlabelled(codes)
    if codes.ndim == 2:
        names, places, roles = _of_lists(codes, classes)
    elif len(classes) > MOST_GROUPS and (values := as_numbers(classes)) is not None:
        names, places, roles = _of_numbers(codes, values)
    else:
        names, places, roles = _of_classes(codes, classes)
    places = np.where(missing, len(names), places).astype(np.uint8)
    counts = np.bincount(places, minlength=len(names) + 1).tolist()
    number = {name: i for i, name in enumerate(order or names)}
    colors = [number.get(name) if role == "class" else None for name, role in zip(names, roles, strict=True)]
    groups = [MapGroup(*one) for one in zip(names, counts, roles, colors, strict=False)]
    return groups + ([MapGroup(none, counts[-1], "none")] if counts[-1] else []), places


def _of_classes(codes: np.ndarray, classes: list[str]) -> tuple[list[str], np.ndarray, list[str]]:
    counts = np.bincount(codes[codes >= 0], minlength=len(classes))
    shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_GROUPS])
    place = np.full(len(classes) + 1, len(shown))  # the rest; -1, no label, is the last
    place[shown] = np.arange(len(shown))
    names, roles = [classes[c] for c in shown], ["class"] * len(shown)
    if len(classes) > len(shown):
        names, roles = [*names, f"{len(classes) - len(shown)} others"], [*roles, "other"]
    return names, place[codes], roles


def _of_lists(codes: np.ndarray, classes: list[str]) -> tuple[list[str], np.ndarray, list[str]]:
    """A row with one label is of its class; with several or none, of groups of their own."""
    count = (codes > 0).sum(axis=1)
    only = np.where(count == 1, codes.argmax(axis=1), -1).astype(np.int64)
    names, places, roles = _of_classes(only, classes)
    extra = len(names)
    places = np.where(count > 1, extra, np.where(count == 0, extra + 1, places))
    return [*names, "several labels", "empty list"], places, [*roles, "several", "other"]


def _of_numbers(codes: np.ndarray, values: np.ndarray) -> tuple[list[str], np.ndarray, list[str]]:
    of_rows = values[codes[codes >= 0]]
    edges = np.unique(np.quantile(of_rows, np.linspace(0, 1, SCALE_BINS + 1))) if len(of_rows) else np.zeros(1)
    inner = edges[1:-1]
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)] or [f"{edges[0]:g}"]
    place = np.append(np.searchsorted(inner, values, side="right"), 0)
    return names, place[codes], ["bin"] * len(names)
