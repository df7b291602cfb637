"""--hierarchy: which columns are the levels, or what separates them in one; and the tree that a cache's labels make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.runs.data import Data, value_codes
from embedcache.runs.hierarchy import Hierarchy, NodePath, path_of

BELOW = ">"  # between columns, as in "genre>subgenre"
MOST_LEVELS = 20


@dataclass(frozen=True)
class AskedHierarchy:
    """What was asked for: columns from the top down, the last of which is learned; or the separator of paths."""

    columns: tuple[str, ...] = ()
    separator: str | None = None

    @property
    def option(self) -> str:
        """As the command line has it."""
        return f"--hierarchy {self.separator or BELOW.join(self.columns)}"

    @property
    def spelled(self) -> str | list[str]:
        """What run.json keeps of it; read_hierarchy reads it back."""
        return self.separator or list(self.columns)

    def label(self, label: str | Sequence[str] | None) -> str | Sequence[str] | None:
        """The label column. Raises EmbedcacheError where another was named than the columns end in."""
        if self.separator is not None:
            return label
        if label is not None and label not in (self.columns[-1], list(self.columns[-1:])):
            named = label if isinstance(label, str) else ",".join(label)
            raise EmbedcacheError(f"--label {named}: {self.option} learns {self.columns[-1]!r}: leave --label out")
        return self.columns[-1]


def read_hierarchy(asked: str | Sequence[str]) -> AskedHierarchy:
    """What ``--hierarchy`` names. Text without a letter or digit is a separator. Raises EmbedcacheError."""
    if isinstance(asked, str) and asked.strip() and not any(map(str.isalnum, asked)):
        return AskedHierarchy(separator=asked.strip())
    columns = tuple(one.strip() for one in (asked.split(BELOW) if isinstance(asked, str) else asked))
    if len(columns) < 2 or not all(columns):
        raise EmbedcacheError(
            f"--hierarchy {asked}: name label columns from the top down, like genre{BELOW}subgenre, or what separates "
            f"the levels of one column, like {BELOW}"
        )
    if len(set(columns)) < len(columns):
        raise EmbedcacheError(f"--hierarchy {BELOW.join(columns)}: a column is named twice")
    return AskedHierarchy(columns)


def make_hierarchy(cache: Cache, data: Data, asked: AskedHierarchy | None) -> Hierarchy | None:
    """The tree of a column's classes; None where none was asked for.

    Raises:
        EmbedcacheError: the column has several labels a row, or numbers; a column is missing; a level is empty; a node
            has two parents; there is one level alone.
    """
    if asked is None:
        return None
    if not kind_of(data.kind).exclusive:
        raise EmbedcacheError(
            f"{asked.option}: column {data.label!r} is a {data.kind}, and a row needs one label of it"
        )
    return _of_paths(cache, data, asked) if asked.separator is not None else _of_columns(cache, data, asked)


def above_only(cache: Cache, data: Data, asked: AskedHierarchy) -> int:
    """How many rows have a value on an upper level, and no label."""
    there = np.zeros(cache.rows, bool)
    for column in asked.columns[:-1]:
        there |= value_codes(cache, column, asked.option, data.label)[0] >= 0
    return int((there & ~data.labelled).sum())


def _of_paths(cache: Cache, data: Data, asked: AskedHierarchy) -> Hierarchy:
    separator = str(asked.separator)
    seen: dict[NodePath, str] = {}
    where = f"{asked.option}: column {data.label!r} of {cache.path}"
    for name in data.classes:
        path = path_of(name, separator)
        if not all(path):
            raise EmbedcacheError(f"{where} has the label {name!r}, with an empty level: correct it")
        if path in seen:
            raise EmbedcacheError(f"{where} has one path in two spellings, {seen[path]!r} and {name!r}: correct one")
        seen[path] = name
    deepest = max(map(len, seen))
    if deepest == 1:
        raise EmbedcacheError(f"{where} has no {separator!r} in any label: name what separates the levels")
    if deepest > MOST_LEVELS:
        raise EmbedcacheError(
            f"{where} has a path of {deepest} levels, and {MOST_LEVELS} are the most: is {separator!r} what separates "
            "them?"
        )
    spaced = (separator, f" {separator} ", f"{separator} ", f" {separator}")  # as labels are written
    joint = next((one for one in spaced if all(one.join(path) == name for path, name in seen.items())), separator)
    return Hierarchy(tuple(f"level_{i + 1}" for i in range(deepest)), tuple(seen), joint)


def _of_columns(cache: Cache, data: Data, asked: AskedHierarchy) -> Hierarchy:
    rows = np.flatnonzero(data.labelled)
    below, names = data.y[rows].astype(np.int64), data.classes
    paths: list[NodePath] = [(name,) for name in names]
    first = np.unique(below, return_index=True)[1]  # a row of each class
    child = asked.columns[-1]
    for column in reversed(asked.columns[:-1]):
        codes, parents = value_codes(cache, column, asked.option, data.label)
        above = codes[rows]
        if (above < 0).any():
            at = int((above < 0).argmax())
            raise EmbedcacheError(
                f"{asked.option}: row {rows[at]:,} of {cache.path}, counted from 0, has {names[below[at]]!r} in "
                f"{child!r} and nothing in {column!r}: fill the cell"
            )
        parent = np.full(len(names), -1, np.int64)
        parent[below] = above
        if (parent[below] != above).any():
            raise _two_parents(rows, below, above, names, parents, child, column, asked)
        paths = [(parents[above[row]], *path) for row, path in zip(first.tolist(), paths, strict=True)]
        below, names, child = above, parents, column
    return Hierarchy(asked.columns, tuple(paths))


def _two_parents(
    rows: np.ndarray,
    below: np.ndarray,
    above: np.ndarray,
    names: Sequence[str],
    parents: Sequence[str],
    child: str,
    column: str,
    asked: AskedHierarchy,
) -> EmbedcacheError:
    """The first node that has."""
    order = np.lexsort((np.arange(len(below)), below))
    differs = np.flatnonzero((below[order][1:] == below[order][:-1]) & (above[order][1:] != above[order][:-1]))[0]
    two = order[[differs, differs + 1]]
    each = " and ".join(f"{parents[above[i]]!r} (row {rows[i]:,})" for i in two.tolist())
    whole = BELOW.join([parents[above[two[0]]], names[below[two[0]]]])
    return EmbedcacheError(
        f"{asked.option}: {names[below[two[0]]]!r} in {child!r} has two parents in {column!r}, {each}, rows counted "
        f"from 0: correct one, or make one column of whole paths, like {whole}, and name {BELOW!r}"
    )
