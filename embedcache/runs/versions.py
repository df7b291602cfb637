"""What older versions wrote, as today's would have: in heads of version 1 and runs of format 1 epochs count from 0.

Today they count from 1 wherever a person or a file sees them, and a best epoch of 0 says that none ended with a finite
loss (before: -1). Only what is changed is checked here; the schema checks the rest afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedcache.heads.schema import head_of_today, one_later

RUN_VERSION = 2  # of run.json and of the tables beside it: its format_version


def info_of_today(info: dict[str, Any], version: int) -> dict[str, Any]:
    """run.json of one label column, of a format_version."""
    if version >= RUN_VERSION:
        return info
    found, best, heads = dict(info), info.get("best"), info.get("heads")
    if isinstance(best, dict):
        found["best"] = one_later(best, "best_epoch")
    if isinstance(heads, dict):
        found["heads"] = {name: head_of_today(head) for name, head in heads.items()}
    return found


def rows_of_today(rows: Sequence[dict[str, Any]], version: int, epoch: str) -> list[dict[str, Any]]:
    """Rows of leaderboard.csv or history.csv, whose column ``epoch`` is one."""
    return list(rows) if version >= RUN_VERSION else [one_later(row, epoch) for row in rows]
