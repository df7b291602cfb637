"""What settings, scores and baselines are called, and which of them are worth a word: for the screen and the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedcache.runs.settings_shown import SHOWN


def swept(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The settings in which rows differ, and the others."""
    known = [key for key in SHOWN if rows and key in rows[0]]
    different = [key for key in known if len({str(row[key]) for row in rows if _has(key, row)}) > 1]
    return different, [key for key in known if key not in different]


def worth_saying(key: str, row: dict[str, Any]) -> bool:
    """Whether a row's value of a setting makes a difference and is not the usual one."""
    return _has(key, row) and row[key] is not None and row[key] not in SHOWN[key].silent


def _has(key: str, row: dict[str, Any]) -> bool:
    """Whether the setting means something for this row: a linear probe has no place for dropout."""
    return SHOWN[key].means(row)


def setting(key: str, row: dict[str, Any]) -> str:
    """A row's value of a setting."""
    if not _has(key, row):
        return "-"
    value = row[key]
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def same_in_all(rows: Sequence[dict[str, Any]]) -> str:
    """The settings that rows share, in words; "" where there is nothing to say."""
    one = next((row for row in rows if row["hidden"]), rows[0])  # a probe has no dropout
    return ", ".join(f"{SHOWN[key].label} {setting(key, one)}" for key in swept(rows)[1] if worth_saying(key, one))


def in_words(row: dict[str, Any], keys: Sequence[str]) -> str:
    """These settings of one row."""
    return ", ".join(f"{SHOWN[key].label} {setting(key, row)}" for key in keys if worth_saying(key, row))
