"""What a run's files and a saved head may hold: every value that a reader uses, with its type and its bounds.

A reader that uses a new value of run.json names it here. What is optional is checked where it is there;
folder.require_keys asks for what a use needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from embedcache.common.checked import Count, Digest, Interval, Number, Positive, SchemaError, Share, conform
from embedcache.common.encoder_schema import Identity
from embedcache.common.outputs import LAYERS
from embedcache.encoder.poolings import MODEL, POOLINGS
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import Kind, kind_of
from embedcache.heads.schema import Head, KindName, Score, Spec, check_head
from embedcache.runs.schema_split import Comparison, Metric, ScoreName, Split
from embedcache.runs.scores import SCORES

Width = Annotated[int, Meta(ge=1, le=2**24)]
Plain = str | int | float | bool | None
Optional = UnsetType  # of a key that may be missing
SCORE: Any = Score
INTERVAL: Any = Interval | None

ONE = "|".join((*POOLINGS, MODEL))  # pooling


class Bin(msgspec.Struct):
    low: Share
    high: Share
    rows: Count
    confidence: Share
    accuracy: Share


class Calibration(msgspec.Struct):
    loss: Score
    ece: Number
    ece_adaptive: Number
    brier: Number
    bins: list[Bin] | Optional = UNSET


class ClassScores(msgspec.Struct):
    label: str
    precision: Number
    recall: Number
    f1: Number
    support: Count


class Confusion(msgspec.Struct):
    label: str
    predicted: str
    rows: Count


class LevelScore(msgspec.Struct):
    level: str
    nodes: Count
    accuracy: Share
    accuracy_interval: INTERVAL


class Evaluation(msgspec.Struct):
    """metrics.Evaluation.to_dict(); its other scores are numbers, too: see ``_scores``."""

    kind: KindName
    rows: Annotated[int, Meta(ge=1)]
    per_class: list[ClassScores] | Optional = UNSET
    confusion_matrix: list[list[Count]] | Optional | None = UNSET
    confusions: list[Confusion] | Optional = UNSET
    calibration: Calibration | Optional | None = UNSET
    temperature: Positive | Optional | None = UNSET
    calibration_scaled: Calibration | Optional | None = UNSET
    levels: list[LevelScore] | Optional = UNSET
    hierarchical_f1: Share | Optional = UNSET


class Evaluations(msgspec.Struct):
    val: Evaluation | None
    test: Evaluation | None


class Best(msgspec.Struct):
    """Scores are ``val_*`` and ``test_*``: see ``_scores``."""

    name: str
    hyperparameters: Spec
    best_epoch: Count  # from 1; 0: none
    epochs_run: Count
    temperature: Positive | None = None
    test_groups: Count | None = None
    chosen_by: ScoreName | None = None
    compared_by: Metric | None = None


class Spread(msgspec.Struct):
    settings: dict[str, Plain | list[float]]
    heads: list[str]
    score: ScoreName
    mean: Number
    std: Number
    min: Number
    max: Number


class Targets(msgspec.Struct):
    rows: Count
    counts: list[Count] | Optional = UNSET
    mean: Number | Optional = UNSET
    std: Number | Optional = UNSET
    min: Number | Optional = UNSET
    max: Number | Optional = UNSET
    median: Number | Optional = UNSET


class Reading(msgspec.Struct):
    """The part of common.reading.Reading.to_dict() that is shown."""

    texts: Count
    truncated: Count
    counted: Count
    unknown: Count
    max_length: Count
    lost_share: Share
    unknown_share: Share


class Mistake(msgspec.Struct):
    row: Count
    hash: Digest


class ClassMistake(Mistake):
    label: str
    predicted: str
    probability: Number
    label_probability: Number


class LabelMistake(Mistake):
    label: list[str]
    predicted: list[str]
    about: str
    probability: Number


class ValueMistake(Mistake):
    label: Number
    predicted: Number


class Threshold(msgspec.Struct):
    label: str
    threshold: Share
    rows: Count | Optional = UNSET  # of a label among the validation rows
    shared: bool | Optional = UNSET  # with the other labels of few rows
    val_f1: Score | Optional = UNSET
    val_f1_at_half: Score | Optional = UNSET
    test_f1: Score | Optional = UNSET
    test_f1_at_half: Score | Optional = UNSET
    metric: Metric | Optional = UNSET  # of two classes; its scores are checked by ``_check_thresholds``


class Encoder(msgspec.Struct):
    source: str
    identity: Identity
    store: Literal["float16", "float32", "int8"] | Optional = UNSET


class CacheOf(msgspec.Struct):
    path: str
    fingerprint: str
    rows: Count
    text_column: str | Optional | None = UNSET


class LabelsFrom(msgspec.Struct):
    """The labels that lay over those of the cache: the first ``entries`` of a journal, by the digest of their lines."""

    journal: str | None
    entries: Count
    digest: Digest | None
    labels: Count


class Tuned(msgspec.Struct):
    """What finetune trained of which base: layers from 1, how many numbers; kind: see encoder/tuned.py."""

    train: str
    layers: list[Count]
    parameters: Count
    base: str
    kind: Literal["tensors", "lora", "adapter"]


class Hierarchy(msgspec.Struct):
    """hierarchy.Hierarchy.to_dict(): a path for each class."""

    levels: Annotated[list[str], Meta(min_length=1)]
    separator: Annotated[str, Meta(min_length=1)] | None
    paths: list[Annotated[list[str], Meta(min_length=1)]]


class Settings(msgspec.Struct):
    batch_size: Annotated[int, Meta(ge=1)]
    epochs: Annotated[int, Meta(ge=1)]
    val: Share
    test: Share
    standardize: bool = False


class Info(msgspec.Struct):
    """run.json of one label column."""

    classes: Annotated[list[str], Meta(min_length=1)]
    dim: Width
    files: dict[str, Digest]
    heads: dict[str, Head]
    kind: KindName | Optional = UNSET
    label: str | Optional = UNSET
    dtype: Literal["float16", "float32", "int8"] | Optional = UNSET
    pooling: Annotated[str, Meta(pattern=rf"^({ONE})(\+({ONE}))*$")] | Optional = UNSET
    layer: (
        Annotated[int, Meta(ge=-10_000, le=10_000)] | Annotated[str, Meta(pattern=f"^{LAYERS.pattern}$")] | Optional
    ) = UNSET
    inputs: dict[str, Count] | Optional = UNSET
    encoder: Encoder | Optional = UNSET
    cache: CacheOf | Optional = UNSET
    labels_from: LabelsFrom | Optional | None = UNSET
    embedcache: str | Optional = UNSET
    created: str | Optional = UNSET
    recipe: str | Optional = UNSET
    settings: Settings | Optional = UNSET
    options: dict[str, Plain | list[Plain]] | Optional = UNSET
    engine: str | Optional = UNSET
    train_seconds: Number | Optional = UNSET
    seconds: Number | Optional = UNSET
    times: dict[str, Number] | Optional = UNSET
    head_rows_per_second: Number | Optional = UNSET
    kept: Count | Optional = UNSET
    versions: dict[str, str] | Optional = UNSET
    split: Split | Optional = UNSET
    best: Best | Optional = UNSET
    evaluation: Evaluations | Optional | None = UNSET
    baselines: dict[str, dict[str, Any]] | Optional | None = UNSET
    comparisons: list[Comparison] | Optional = UNSET
    reading: Reading | Optional = UNSET
    spread: list[Spread] | Optional = UNSET
    notes: list[str] | Optional = UNSET
    targets: dict[str, Targets] | Optional = UNSET
    pairs: dict[str, list[tuple[Number, Number]]] | Optional = UNSET
    thresholds: list[Threshold] | Optional = UNSET
    identities: dict[str, str] | Optional = UNSET
    hierarchy: Hierarchy | Optional | None = UNSET
    tuned: Tuned | Optional = UNSET


class Columns(msgspec.Struct):
    """run.json of several label columns: column -> folder. Where ``files`` is there, it has each folder's run.json."""

    columns: Annotated[dict[str, str], Meta(min_length=1)]
    files: dict[str, Digest] | Optional = UNSET


def check_info(info: Mapping[str, Any]) -> None:
    """Raises SchemaError unless run.json of one label column is one."""
    found = conform(info, Info)
    if len(set(found.classes)) < len(found.classes):
        raise SchemaError("classes holds one class twice")
    scores = [set(head.history) for head in found.heads.values()]
    for (name, head), names in zip(found.heads.items(), scores, strict=True):
        check_head(head, f"heads[{name!r}]")
        if names != scores[0]:
            raise SchemaError(f"heads[{name!r}].history has other scores than the first head's")
    if found.best is not UNSET:
        _scores(info["best"], "best", "val_", "test_")
    for name, scores in (info.get("baselines") or {}).items():
        _scores(scores, f"baselines.{name}", "val_", "test_")
    for side, one in (info.get("evaluation") or {}).items():
        if isinstance(one, dict):
            _check_evaluation(one, found.classes, f"evaluation.{side}")
    _check_hierarchy(found)
    _check_thresholds(info, found)
    _check_mistakes(info, found)
    _check_folds(info, found)
    _check_targets(found)


def _scores(scores: Mapping[str, Any], where: str, *sides: str) -> None:
    """``val_accuracy`` and the like are numbers or null, ``test_accuracy_interval`` and the like two of them."""
    for name, value in scores.items():
        if name.startswith(sides):
            conform(value, INTERVAL if name.endswith("_interval") else SCORE, f"{where}.{name}")


def _check_evaluation(one: dict[str, Any], classes: list[str], where: str) -> None:
    found = conform(one, Evaluation, where)
    for name in SCORES:
        conform(one.get(name), SCORE, f"{where}.{name}")
    for name in (name for name in one if name.endswith("_interval")):
        conform(one[name], INTERVAL, f"{where}.{name}")
    if not kind_of(found.kind).has_classes:
        return
    if found.per_class is UNSET or found.calibration is UNSET or found.calibration is None:
        raise SchemaError(f"{where} has no per_class or calibration")
    if len(found.per_class) != len(classes):
        raise SchemaError(f"{where}.per_class has {len(found.per_class)} classes, not {len(classes)}")
    matrix: Any = found.confusion_matrix
    if isinstance(matrix, list) and matrix and any(len(row) != len(classes) for row in [matrix, *matrix]):
        raise SchemaError(f"{where}.confusion_matrix is not {len(classes)} x {len(classes)}")


def _check_hierarchy(found: Info) -> None:
    """A path for each class, each another, as deep as there are levels at most."""
    one = found.hierarchy
    if not isinstance(one, Hierarchy):
        return
    if len(one.paths) != len(found.classes) or not _kind(found).exclusive:
        raise SchemaError(f"hierarchy has {len(one.paths)} paths of {len(found.classes)} classes")
    if len(set(map(tuple, one.paths))) < len(one.paths):
        raise SchemaError("hierarchy holds one path twice")
    if max(map(len, one.paths)) != len(one.levels):
        raise SchemaError("hierarchy has paths of another depth than its levels")


def _check_thresholds(info: Mapping[str, Any], found: Info) -> None:
    """Each is of a class, and those of two classes have the scores of their metric."""
    if isinstance(found.thresholds, list):
        for i, one in enumerate(found.thresholds):
            if one.label not in found.classes:
                raise SchemaError(f"thresholds[{i}].label is not one of the classes")
            _scores(info["thresholds"][i], f"thresholds[{i}]", "val_", "test_")


def _check_mistakes(info: Mapping[str, Any], found: Info) -> None:
    mistakes = conform(info.get("mistakes", {}), dict[str, list[dict[str, Any]]], "mistakes")
    if mistakes:
        if found.kind is UNSET:
            raise SchemaError("kind is missing")
        forms: list[type[Mistake]] = [ClassMistake, LabelMistake, ValueMistake]
        form = kind_of(found.kind).by_form(*forms)
        for side, some in mistakes.items():
            conform(some, list[form], f"mistakes.{side}")  # type: ignore[valid-type]


def _kind(found: Info) -> Kind:
    """Runs of the first versions have none: they are classifications."""
    return kind_of("classification" if found.kind is UNSET else found.kind)


def _check_targets(found: Info) -> None:
    """Each side with rows has how many of each class, or how its values are spread."""
    if not isinstance(found.targets, dict) or not found.targets:
        return
    values = ("counts",) if _kind(found).has_classes else ("mean", "std", "min", "max", "median")
    if "train" not in found.targets or not found.targets["train"].rows:
        raise SchemaError("targets has no training rows")
    for side, about in found.targets.items():
        if about.rows and UNSET in [getattr(about, name) for name in values]:
            raise SchemaError(f"targets.{side} has no {' or '.join(values)}")
        if isinstance(about.counts, list) and len(about.counts) > len(found.classes):
            raise SchemaError(f"targets.{side}.counts has more classes than there are")


def _check_folds(info: Mapping[str, Any], found: Info) -> None:
    """The chosen head is among the heads: as such, or in each fold."""
    if found.best is UNSET:
        return
    folds = None if found.split is UNSET else found.split.folds
    names = [found.best.name] if not folds else [f"{found.best.name}/fold-{i}" for i in range(len(folds))]
    for name in names:
        if name not in found.heads:
            raise SchemaError(f"best.name is {found.best.name!r}, but heads has no {name!r}")
        main = f"val_{_kind(found).main}"
        history = found.heads[name].history
        if (history or folds) and {"train_loss", "val_loss", main} - set(history):
            raise SchemaError(f"heads[{name!r}].history has no train_loss, val_loss or {main}")


def damaged(path: Any, error: Exception) -> EmbedcacheError:
    """The one line about a file of a run."""
    return EmbedcacheError(f"{path} is damaged: {error}; train it again")
