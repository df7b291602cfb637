"""The sides of a split that duplicates should not cross: a column's values, or those of a run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.runs.folder import load_run
from embedcache.runs.sides import load_sides, stored_sides
from embedcache.runs.split import SIDES

MOST_SIDES = 20


@dataclass(frozen=True)
class Sides:
    """``codes`` int64 [N], -1 for a row on no side, and the ``names`` that they number."""

    codes: np.ndarray
    names: list[str]

    def name(self, row: int) -> str | None:
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else None


def column_sides(cache: Cache, column: str) -> Sides:
    """The sides in a label column or a kept one, such as train and test; blank is not a side.

    Raises EmbedcacheError where there is no such column, or its values are not the sides of a split.
    """
    if column in cache.label_names and not cache.holds_lists(column):
        codes, names = cache.labels(column)
        codes = codes.astype(np.int64)
    elif column in cache.column_names:
        number: dict[str, int] = {"": -1}
        codes = np.array([number.setdefault(v.strip(), len(number) - 1) for v in cache.column(column)], np.int64)
        names = list(number)[1:]
    else:
        known = ", ".join([*cache.label_names, *cache.column_names])
        raise EmbedcacheError(
            f"--split {column}: {cache.path} has no such column; it has {known or 'none'}; extract with --keep adds one"
        )
    used = len(np.unique(codes[codes >= 0]))
    if not 2 <= used <= MOST_SIDES:
        raise EmbedcacheError(
            f"--split {column}: that column has {used:,} different values; name one with the sides of a split, such "
            f"as train and test ({MOST_SIDES} at most)"
        )
    return Sides(codes, list(names))


def run_sides(cache: Cache, path: str | Path, label: str | None) -> Sides:
    """The rows that a run of train-head on this cache trained, validated and tested on.

    Rows that are new since then are on no side. Raises EmbedcacheError where there is no such run or column in it, or
    where the run does not hold its sides and the cache has other rows than then.
    """
    run = load_run(path)
    name = label if label is not None else next(iter(run.columns))
    if name not in run.columns:
        raise EmbedcacheError(f"--run {path}: it has heads for {', '.join(run.columns)}, not for {name!r}")
    codes = stored_sides(cache, run.columns[name], f"--run {path}")
    return Sides(codes.astype(np.int64), list(SIDES))


def tuned_note(cache: Cache) -> str | None:
    """What to know of a cache whose encoder was tuned: its vectors have seen labels. None where it was not."""
    digest = cache.encoder["identity"].get("tuned")
    if digest is None:
        return None
    which = "rows of the run that is no longer there"
    with suppress(EmbedcacheError):
        run = load_run(cache.encoder["source"])
        sides = load_sides(run) if run.info["encoder"]["identity"].get("tuned") == digest else None
        if sides is not None:
            rows = int(np.count_nonzero(sides.of(cache.hashes) == SIDES.index("train")))
            which = f"{rows:,} of these rows"
    return (
        f"the encoder was tuned on the labels of {which}, so its vectors have seen them: the number of errors may be "
        "too low; the cache of the frozen encoder has not seen any"
    )
