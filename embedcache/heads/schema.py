"""What a saved head may hold: every value with its type and bounds; heads of older versions are read as today's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from embedcache.common.checked import Count, Number, SchemaError
from embedcache.heads.settings import Choice, ClassWeights, Pair, Whole
from embedcache.heads.settings import Number as Numbers
from embedcache.heads.spec import SETTINGS

KindName = Literal["classification", "multilabel", "regression"]
Score = Number | None
HEAD_VERSION = 2  # of TrainedHead.metadata()


_FIRST = ("hidden", "lr", "dropout", "weight_decay", "seed")  # settings that every file has
_TYPES: dict[type, Any] = {
    Whole: Annotated[int, Meta(ge=0)],
    Numbers: Number,
    Choice: str,
    Pair: tuple[Number, Number],
    ClassWeights: str | list[Number] | None,
}
# A HeadSpec in a file. spec.HeadSpec checks the ranges; here are the types.
Spec: Any = msgspec.defstruct(
    "Spec",
    [(name, _TYPES[type(one.values)], *([] if name in _FIRST else [one.default])) for name, one in SETTINGS.items()],
)


class Head(msgspec.Struct):
    """TrainedHead.metadata() of today; head_of_today makes it of older ones."""

    spec: Spec
    classes: list[str | int | float | bool] | None
    best_epoch: Count  # from 1; 0: none
    epochs_run: Count
    status: Literal["ok", "diverged", "cancelled"]
    val_loss: Score
    val_accuracy: Score
    task: Count
    history: dict[str, list[Score]]
    version: Annotated[int, Meta(ge=1, le=HEAD_VERSION)] = 1
    kind: KindName = "classification"  # files of version 0.1 have none
    reads: str | None = None


def check_head(head: Head, where: str) -> None:
    """Raises SchemaError unless a head's history fits its epochs."""
    lengths = {len(values) for values in head.history.values()}
    if lengths - {head.epochs_run}:
        raise SchemaError(f"{where}.history has not one value for each of {head.epochs_run} epochs")
    if head.best_epoch > max(head.epochs_run, 1):
        raise SchemaError(f"{where}.best_epoch is {head.best_epoch} of {head.epochs_run} epochs")


def head_of_today(metadata: dict[str, Any]) -> dict[str, Any]:
    """TrainedHead.metadata() of any version; itself where it is of today's."""
    if not isinstance(metadata, dict) or metadata.get("version", 1) != 1:  # the first version had no number
        return metadata
    return {**one_later(metadata, "best_epoch"), "version": HEAD_VERSION}


def one_later(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The values with an epoch that counted from 0 counted from 1."""
    epoch = values.get(name)
    if isinstance(epoch, bool) or not isinstance(epoch, (int, float)):
        return values
    return {**values, name: epoch + 1}
