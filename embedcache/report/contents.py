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
from embedcache.labelling import Overlay
from embedcache.labelling.entry import Value
from embedcache.labelling.opened import find_overlay, notes_of
from embedcache.labelling.overlay import same_label
from embedcache.runs.column import TOP, ColumnReport
from embedcache.runs.folder import Run, require_keys
from embedcache.runs.mistakes import NAMED
from embedcache.runs.tables import read_leaderboard

NEEDED = ("label", "kind", "split", "best", "baselines", "cache", "pooling", "layer", "dtype")  # of run.json
LONGEST_TEXT = 1000  # characters of a mistake's text


@dataclass
class ColumnContents:
    """Of one label column.

    leaderboard: every head, best first, numbers as numbers. curves: score -> float64 [heads, epochs], the heads in the
    order of the leaderboard, means over their folds, NaN where nothing was measured. info: its run.json. mistakes:
    "val" and "test" -> mistakes.find_mistakes, with "text" and "id" (None where the cache does not have them), and
    "label_now" where people have given another label than the one that the head was held against.
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

    labels_from: the journal of labels that people gave, see docs/labelling.md; None: there is none.
    audit: what audit_section.read_audit gives, or None.
    """

    path: Path
    info: dict[str, Any]
    columns: dict[str, ColumnContents]
    texts: str | None = None
    labels_from: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None

    @property
    def heads(self) -> int:
        return sum(len(column.leaderboard) for column in self.columns.values())

    @property
    def notes(self) -> list[str]:
        """What people have said since the training, in sentences."""
        mistakes = [one for column in self.columns.values() for some in column.mistakes.values() for one in some]
        changed = [one for one in mistakes if "label_now" in one]
        right = sum(one["label_now_predicted"] for one in changed)
        if not changed:
            return notes_of(self.labels_from)
        said = f"{len(changed):,} of the {len(mistakes):,} mistakes have another label by now"
        said += f", {right:,} of them the predicted one" if right else ""
        return [*notes_of(self.labels_from), f"{said}; train again to learn from that and be scored by it"]


def read_contents(run: Run, cache: str | Path | None = None, labels: str | Path | None = None) -> ReportContents:
    """Read what a run keeps and look up its mistakes' texts in its cache, or in the one named.

    labels: the journal of what people say of the mistakes by now, see ``open_labelled``.

    A cache that is gone or has no texts is an error only if it was named. Raises EmbedcacheError for a journal that
    cannot be read, and a leaderboard that is damaged; KeyError, TypeError, ValueError, IndexError or AttributeError
    where run.json is.
    """
    columns = {name: _read_column(one) for name, one in run.columns.items()}
    contents = ReportContents(run.path, run.info, columns)
    where = run.info["cache"]["path"] if cache is None else cache
    overlay = find_overlay(where, labels)
    contents.texts, contents.labels_from = _add_texts(columns.values(), Path(where), overlay, named=cache is not None)
    if overlay is not None:
        for column in columns.values():
            _add_labels(column, overlay)
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


def _add_texts(
    columns: Iterable[ColumnContents], path: Path, overlay: Overlay | None, named: bool
) -> tuple[str | None, dict[str, Any] | None]:
    """Give every mistake "text" and "id"; returns why some have none, and ``Cache.labels_from``."""
    mistakes = [one for column in columns for some in column.mistakes.values() for one in some]
    for one in mistakes:
        one["text"] = one["id"] = None
    try:
        with open_cache(path, labels=overlay) as cache:
            about = cache.labels_from
            found = sum(_add_text(one, cache) for one in mistakes)
    except EmbedcacheError as error:
        if named:
            raise
        return f"the cache cannot be read: {error}", None
    if found < len(mistakes):
        lost = len(mistakes) - found
        total = f"{len(mistakes):,} texts of the mistakes"
        return f"{path} has changed since: {lost:,} of the {total} are not in it any more", about
    return None, about


def _add_labels(column: ColumnContents, overlay: Overlay) -> None:
    """Give the mistakes of a column "label_now" where people have given another label than theirs."""
    for mistake in (one for some in column.mistakes.values() for one in some):
        given = overlay.given(column.report.label, mistake["hash"])
        if given is not None and not _is_label(given.label, mistake["label"]):
            label = given.label
            mistake["label_now"] = (
                list(label) if isinstance(label, tuple) else float(label) if isinstance(label, int) else label
            )
            mistake["label_now_predicted"] = _is_label(label, mistake["predicted"])


def _is_label(given: Value, kept: Any) -> bool:
    """Whether a label that was given is that of a mistake, whose numbers were float32 and whose lists are cut."""
    if isinstance(kept, list):
        return isinstance(given, tuple) and (set(kept) == set(given) if len(kept) < NAMED else set(kept) <= set(given))
    if isinstance(kept, float):
        return isinstance(given, (int, float)) and bool(np.float32(given) == np.float32(kept))
    return same_label(given, kept)


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
