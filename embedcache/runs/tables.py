"""The tables of a run, as its training wrote them: the leaderboard and the learning curves, numbers as numbers."""

from __future__ import annotations

from typing import Any

from embedcache.common.checked import Count, SchemaError, conform, read_table
from embedcache.heads.spec import SETTINGS
from embedcache.runs.folder import HISTORY, LEADERBOARD, Run, read_file
from embedcache.runs.schema import damaged
from embedcache.runs.settings_shown import TUNED
from embedcache.runs.versions import rows_of_today

# Columns of leaderboard.csv that hold no numbers.
TEXTS = frozenset({"name", "status", *(name for name, setting in {**SETTINGS, **TUNED}.items() if setting.values.text)})
NEEDED = ("rank", "name", "status", "hidden", "best_epoch")


def read_leaderboard(run: Run) -> list[dict[str, Any]]:
    """Its heads, best first, epochs from 1; None for blank cells. Raises EmbedcacheError where the file is damaged."""
    try:
        rows = read_table(read_file(run, LEADERBOARD), TEXTS)
        entries = {name.split("/fold-")[0] for name in run.info["heads"]}
        for row in rows:
            for name in NEEDED:
                if row.get(name) is None:
                    raise SchemaError(f"{name} is missing")
            if row["name"] not in entries:
                raise SchemaError(f"run.json has no head {row['name']!r}")
        if not rows:
            raise SchemaError("it has no rows")
    except SchemaError as error:
        raise damaged(run.path / LEADERBOARD, error) from None
    return rows_of_today(rows, run.version, "best_epoch")


def read_history(run: Run) -> list[dict[str, Any]]:
    """head, fold, epoch (from 1), scores; no rows of a run that never had the file. Raises EmbedcacheError as above."""
    try:
        rows = read_table(read_file(run, HISTORY), frozenset({"head"}))
        for row in rows:
            conform(row.get("epoch"), Count, "epoch")
    except SchemaError as error:
        raise damaged(run.path / HISTORY, error) from None
    return rows_of_today(rows, run.version, "epoch")
