"""--task: a word for all columns, or for each that is named."""

from __future__ import annotations

from typing import Any

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds.option import read_tasks, spelled, task_of


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("auto", "auto"),
        ("regression", "regression"),
        ({}, "auto"),
        ({"a": "regression"}, {"a": "regression"}),
        ("a=regression", {"a": "regression"}),
        ("a=regression, b=auto", {"a": "regression", "b": "auto"}),
        ("a,b=regression,c=d=multilabel", {"a,b": "regression", "c=d": "multilabel"}),
        ("a=regression=regression", {"a=regression": "regression"}),
        ("星=regression", {"星": "regression"}),
    ],
    ids=str,
)
def test_what_it_says(task: Any, found: Any) -> None:
    assert read_tasks(task) == found
    assert read_tasks(spelled(read_tasks(task))) == found
    assert task_of(read_tasks(task), "a") == (found if isinstance(found, str) else found.get("a", "auto"))


@pytest.mark.parametrize(
    "task",
    ["", "numbers", "a=numbers", "a=regression,", "a=regression,b", "=regression", 3, None, {"a": 3}, {3: "auto"}],
)
def test_what_it_cannot_say(task: Any) -> None:
    with pytest.raises(EmbedcacheError, match="use auto, classification, multilabel or regression, or COLUMN=KIND"):
        read_tasks(task)


def test_a_column_has_one_kind() -> None:
    with pytest.raises(EmbedcacheError, match="'a' is named twice"):
        read_tasks("a=regression,a=auto")
