"""--task: a kind for all columns, or one for each that is named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import KINDS, NUMBERS

WORDS = ("auto", *KINDS)
# One of "stars=regression,mood=classification"; a column's name may hold commas and equals signs.
NAMED = re.compile(rf"(?P<column>.+?)=(?P<word>{'|'.join(WORDS)})\s*(?:,\s*(?=\S)|$)", re.DOTALL)

Tasks = str | dict[str, str]


def read_tasks(task: Any) -> Tasks:
    """A word of WORDS, or column -> word, from that or from text like "stars=regression". Raises EmbedcacheError."""
    if isinstance(task, str) and task in WORDS:
        return task
    if isinstance(task, Mapping):
        for column, word in task.items():
            if not isinstance(column, str) or word not in WORDS:
                raise _unknown(f"{column}={word}")
        return dict(task) or "auto"
    if not isinstance(task, str):
        raise _unknown(repr(task))
    found: dict[str, str] = {}
    end = 0
    while end < len(task) or not found:
        one = NAMED.match(task, end)
        if one is None:
            raise _unknown(task)
        if one["column"] in found:
            raise EmbedcacheError(f"--task {task}: {one['column']!r} is named twice")
        found[one["column"]], end = one["word"], one.end()
    return found


def task_of(tasks: Tasks, column: str) -> str:
    """The word for one column: "auto" where others are named."""
    return tasks if isinstance(tasks, str) else tasks.get(column, "auto")


def spelled(tasks: Tasks) -> str:
    """As --task has it; read_tasks reads it back."""
    return tasks if isinstance(tasks, str) else ",".join(f"{column}={word}" for column, word in tasks.items())


def number_columns(tasks: Tasks) -> list[str]:
    """The columns that are named with a kind of numbers."""
    return [] if isinstance(tasks, str) else [column for column, word in tasks.items() if is_number(word)]


def is_number(word: Tasks) -> bool:
    """Whether one word for all columns is a kind of numbers; "auto" is none."""
    return word in NUMBERS


def _unknown(task: str) -> EmbedcacheError:
    words = f"{', '.join(WORDS[:-1])} or {WORDS[-1]}"
    return EmbedcacheError(f"--task {task}: use {words}, or COLUMN=KIND for a column by its name")
