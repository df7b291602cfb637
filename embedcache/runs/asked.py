"""What was asked of train-head, checked against each other and the cache before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedcache.cache import Cache
from embedcache.cache.side_by_side import vectors_of
from embedcache.common.outputs import BESIDE, Layer, named_outputs
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.heads.kinds.option import Tasks, is_number, number_columns, spelled
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import SWEPT
from embedcache.runs.column import Column
from embedcache.runs.data import target_column
from embedcache.runs.hierarchy_labels import AskedHierarchy
from embedcache.runs.recipes import Recipe
from embedcache.runs.split import check_shares
from embedcache.runs.sweep import Range
from embedcache.runs.write_folder import check_target


def check_settings(
    settings: Recipe, tasks: Tasks, folds: int | None, val: float | None, early_stop: int | None
) -> None:
    """Options that would do nothing are refused."""
    check_shares(settings.val, settings.test)
    if folds and val is not None:
        raise EmbedcacheError("--val and --folds: give one of them; folds take the place of the validation rows")
    if early_stop and not settings.val and not folds:
        raise EmbedcacheError("--early-stop needs validation rows: raise --val")
    numbers = number_columns(tasks)
    for name in (name for name, setting in SWEPT.items() if setting.classes):
        if (numbers or is_number(tasks)) and not _is_off(settings, name):
            apart = f", or train {' and '.join(numbers)} in a run of its own" if numbers else ""
            option = name.replace("_", "-")
            raise EmbedcacheError(f"--{option} is for classes: leave it out with --task {spelled(tasks)}{apart}")

    for name, loss in LOSSES.items():
        if loss.setting and name not in settings.loss and not _is_off(settings, loss.setting):
            option = loss.setting.replace("_", "-")
            raise EmbedcacheError(f"--{option} is for --loss {name}: add that, or leave it out")


def _is_off(settings: Recipe, name: str) -> bool:
    given = getattr(settings, name)
    return not isinstance(given, Range) and set(given) <= set(SWEPT[name].silent)


def read_outputs(
    cache: Cache, pooling: str | Sequence[str] | None, layer: Layer | Sequence[Layer]
) -> list[tuple[str, Layer]]:
    """What heads read: every pooling of every layer; "cls+mean" and "-1+-4" are side by side. None: Cache.preferred.

    Raises:
        EmbedcacheError: an output is not stored, or named twice.
    """
    names, layers = named_outputs(pooling, layer)
    if names is None:
        names = [cache.preferred(layers[0])]
    found = [(name, one) for name in names for one in layers]
    for name, one in found:
        if found.count((name, one)) > 1:
            raise EmbedcacheError(f"--pooling and --layers name {name} vectors of layer {one} twice")
        if not all(name.split(BESIDE)):
            raise EmbedcacheError(f"--pooling {name}: name poolings, like cls, or several side by side, like cls+mean")
        vectors_of(cache, name, one)  # what is not there is refused
    return found


def check_choice(columns: Sequence[Column], choose: str, chosen: str) -> None:
    """What chooses must be a score of one column; the loss chooses for others."""
    if all(column.choose != chosen for column in columns):
        kind = kind_of(columns[0].kind)
        *first, last = (name.replace("_", "-") for name in kind.choices)
        use = f"{', '.join(first)} or {last}"
        raise EmbedcacheError(f"--choose {choose}: column {columns[0].label!r} holds {kind.outputs}; use {use}")


def label_names(cache: Cache, label: str | Sequence[str] | None, run: str | Path, tasks: Tasks) -> list[str]:
    """The label columns that were named, else the usual one. A name may itself have a comma."""
    if label is None:
        numbers = is_number(tasks) or bool(number_columns(tasks))
        return _check_named([target_column(cache, None, numbers)], tasks)
    whole = label if isinstance(label, str) else ",".join(label)
    names = [whole] if whole in (*cache.label_names, *cache.column_names) else whole.split(",")
    if len(set(names)) < len(names):
        raise EmbedcacheError(f"--label {whole}: a column is named twice")
    check_target(run, names)
    return _check_named(list(names), tasks)


def check_one_column(hierarchy: AskedHierarchy | None, names: Sequence[str]) -> None:
    """A hierarchy is of one label column. Raises EmbedcacheError."""
    if hierarchy is not None and len(names) > 1:
        raise EmbedcacheError(
            f"{hierarchy.option}: it is of one label column, not of {', '.join(names)}: train each in a run of its own"
        )


def _check_named(names: list[str], tasks: Tasks) -> list[str]:
    """The columns, where every one that --task names is among them."""
    for column, word in () if isinstance(tasks, str) else tasks.items():
        if column not in names:
            raise EmbedcacheError(
                f"--task {column}={word}: {column!r} is not among the columns to be trained, "
                f"{', '.join(names)}: add it, --label {','.join([*names, column])}"
            )
    return names
