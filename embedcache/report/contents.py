"""What a report shows: everything that the run folder keeps, and the texts of the mistakes from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.errors import EmbedcacheError
from embedcache.runs.column import TOP, ColumnReport
from embedcache.runs.folder import Run, require_keys
from embedcache.runs.tables import read_leaderboard

NEEDED = ("label", "kind", "split", "best", "baselines", "cache", "pooling", "layer", "dtype")  # of run.json
LONGEST_TEXT = 1000  # characters of a mistake's text


@dataclass
class ColumnContents:
    """Of one label column.

    leaderboard: every head, best first, numbers as numbers. curves: score -> float64 [heads, epochs], the heads in the
    order of the leaderboard, means over their folds, NaN where nothing was measured. info: its run.json. mistakes:
    "val" and "test" -> mistakes.find_mistakes, with "text" and "id" (None where the cache does not have them).
    """

    report: ColumnReport
    leaderboard: list[dict[str, Any]]
    curves: dict[str, np.ndarray]
    mistakes: dict[str, list[dict[str, Any]]]
    info: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """What --json prints of it; JSON types."""
        kept: dict[str, Any] = {name: self.info[name] for name in ("targets", "thresholds") if name in self.info}
        return {**asdict(self.report), **kept, "mistakes": self.mistakes}


@dataclass
class ReportContents:
    """Of a run. info: what the columns share. texts: None, or why (some) texts of the mistakes are not here.

    audit: what audit_section.read_audit gives, or None.
    """

    path: Path
    info: dict[str, Any]
    columns: dict[str, ColumnContents]
    texts: str | None = None
    audit: dict[str, Any] | None = None

    @property
    def heads(self) -> int:
        return sum(len(column.leaderboard) for column in self.columns.values())


def read_contents(run: Run, cache: str | Path | None = None) -> ReportContents:
    """Read what a run keeps and look up its mistakes' texts in its cache, or in the one named.

    A cache that is gone or has no texts is an error only if it was named. Raises EmbedcacheError for a leaderboard that
    is damaged; KeyError, TypeError, ValueError, IndexError or AttributeError where run.json is.
    """
    columns = {name: _read_column(one) for name, one in run.columns.items()}
    contents = ReportContents(run.path, run.info, columns)
    where = run.info["cache"]["path"] if cache is None else cache
    contents.texts = _add_texts(columns.values(), Path(where), named=cache is not None)
    return contents


def _read_column(run: Run) -> ColumnContents:
    info = run.info
    require_keys(run, *NEEDED)
    leaderboard = read_leaderboard(run)
    report = ColumnReport(
        label=str(info["label"]),
        kind=run.best.kind,
        classes=run.classes,
        split=info["split"],
        best=info["best"],
        evaluation=info.get("evaluation") or {"val": None, "test": None},  # the first runs had none
        baselines=info["baselines"],
        comparisons=info.get("comparisons", []),  # the first runs had none
        leaderboard=leaderboard[:TOP],
        spread=info.get("spread", []),
        notes=list(info.get("notes", [])),
    )
    mistakes = {side: [dict(one) for one in some] for side, some in info.get("mistakes", {}).items()}
    return ColumnContents(report, leaderboard, _read_curves(info, leaderboard), mistakes, info)


def _read_curves(info: dict[str, Any], leaderboard: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    by_entry: dict[str, list[dict[str, list[float | None]]]] = {}
    for name, about in info["heads"].items():
        by_entry.setdefault(name.split("/fold-")[0], []).append(about["history"])
    histories = [by_entry[row["name"]] for row in leaderboard]
    epochs = max((len(one["train_loss"]) for folds in histories for one in folds), default=0)
    scores = histories[0][0] if histories else {}
    curves = {}
    for score in scores:
        values = np.full((len(histories), max(map(len, histories)), epochs), np.nan)
        for i, folds in enumerate(histories):
            for k, one in enumerate(folds):
                values[i, k, : len(one[score])] = np.array(one[score], np.float64)  # None becomes NaN
        there = np.isfinite(values)
        sums = np.where(there, values, 0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            curves[score] = np.where(there.any(axis=1), sums / np.maximum(there.sum(axis=1), 1), np.nan)
    return curves


def _add_texts(columns: Iterable[ColumnContents], path: Path, named: bool) -> str | None:
    """Give every mistake "text" and "id"; returns why some have none."""
    mistakes = [one for column in columns for some in column.mistakes.values() for one in some]
    for one in mistakes:
        one["text"] = one["id"] = None
    try:
        with open_cache(path) as cache:
            found = sum(_add_text(one, cache) for one in mistakes)
    except EmbedcacheError as error:
        if named:
            raise
        return f"the cache cannot be read: {error}"
    if found < len(mistakes):
        lost = len(mistakes) - found
        return (
            f"{path} has changed since: {lost:,} of the {len(mistakes):,} texts of the mistakes are not in it any more"
        )
    return None


def _add_text(mistake: dict[str, Any], cache: Cache) -> bool:
    """By the row where it stood, or where its hash is now: a text that is shown is always the one that was judged."""
    wanted, row = bytes.fromhex(mistake["hash"]), int(mistake["row"])
    if not (0 <= row < cache.rows and cache.hashes[row].tobytes() == wanted):
        key = np.frombuffer(wanted, np.uint8)
        rows: Any = np.flatnonzero((cache.hashes == key).all(axis=1)) if len(key) == cache.hashes.shape[1] else []
        if not len(rows):
            return False
        row = int(rows[0])
    text = cache.texts[row]
    if hashlib.blake2b(text.encode(), digest_size=len(wanted)).digest() != wanted:
        return False
    mistake["text"] = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    mistake["id"] = None if cache.ids is None else cache.ids[row]
    mistake["row_now"] = row
    return True
