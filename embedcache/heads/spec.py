"""One head's settings, the table of what is known of each, and grids of heads."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.heads.losses import LOSSES
from embedcache.heads.settings import LARGEST, Choice, ClassWeights, Number, Pair, Setting, Whole, list_values

WEIGHTS = ("w1", "b1", "w2", "b2")  # in the order in which every file and module lists them
SCHEDULES = ("constant", "linear", "cosine")
SHARE = Number(0.0, 1.0)


def _known(values: Any, short: str, label: str = "", turn: int | None = None, **more: Any) -> dict[str, Setting]:
    """Of a field: its line of the table."""
    return {"setting": Setting(values, short, label, turn, **more)}


@dataclass(frozen=True)
class HeadSpec:
    """Linear(D, hidden) - ReLU - Dropout - Linear(hidden, C) - LogSoftmax, trained by AdamW.

    ``hidden=0`` is a linear probe, Linear(D, C) - LogSoftmax; it has no place for dropout, so its dropout becomes 0,
    and specs that differ in that alone are equal.
    ``lr``, ``weight_decay``, ``betas`` and ``eps`` mean what they mean to torch.optim.AdamW. ``seed`` (64 bits)
    decides the initial weights, the order of the rows and the dropout.

    ``label_smoothing`` [0, 1): as torch.nn.CrossEntropyLoss has it; for several labels a row, targets are pulled
    towards 1/2. ``class_weight`` of the training loss: None (the task's), "none", "balanced" (n / (C * count); for
    several labels a row, absent / present rows), or one weight per class. ``schedule`` of the learning rate:
    "constant", "linear" or "cosine" down to 0 after the last epoch, behind a linear warm-up over the first ``warmup``
    (share) of the steps, as transformers' get_linear_schedule_with_warmup and its like. ``loss``: "nll", the negative
    log-likelihood, or for classes and labels "focal", each log p times (1 - p)^``focal_gamma`` (Lin et al., 2017); a
    head with "nll" has no gamma, so its gamma becomes the default.
    Raises EmbedcacheError for a value out of range.
    """

    # Each field is one line of the table of settings: checks, sweeps, the command line, files and tables follow it.
    # The name of a head, its JSON and the columns of leaderboard.csv have the order in which the fields stand here.
    hidden: int = field(default=512, metadata=_known(
        Whole(0, 2**20), "h", "hidden", turn=1, scale="log", always=True, brief=True, option=Whole(0, 2**16),
        help="Hidden units; 0 is a linear probe.  [default: by the rows, 0,512]",
    ))  # fmt: skip
    lr: float = field(default=1e-3, metadata=_known(
        Number(0.0, LARGEST, above=True), "lr", "lr", turn=2, scale="log", always=True, brief=True,
        help="Learning rates.  [default: by the rows, 1e-4,3e-4]",
    ))  # fmt: skip
    dropout: float = field(default=0.1, metadata=_known(
        SHARE, "do", "dropout", turn=3, scale="even", always=True, brief=True, needs=("hidden", bool), absent=0.0,
        without="linear probes (hidden 0) have no dropout",
        help="Share of the hidden units that each training step drops.",
    ))  # fmt: skip
    weight_decay: float = field(default=0.01, metadata=_known(
        Number(0.0, LARGEST), "wd", "decay", turn=4, scale="log", always=True, brief=True,
        help="Weight decay of AdamW.",
    ))  # fmt: skip
    seed: int = field(default=0, metadata=_known(
        Whole(0, 2**64 - 1), "s", "seed", turn=12, always=True, brief=True, option=Whole(0, 2**63 - 1),
        help="Seeds of the initial weights, the order of the rows and the dropout.",
    ))  # fmt: skip
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=_known(Pair(SHARE), "b", column=False))
    eps: float = field(default=1e-8, metadata=_known(Number(1e-20, 1.0), "eps", "eps", turn=11))
    label_smoothing: float = field(default=0.0, metadata=_known(
        SHARE, "ls", "smoothing", turn=5, scale="even", classes=True,
        help="Share of a label that is spread over all of them.",
    ))  # fmt: skip
    class_weight: str | tuple[float, ...] | None = field(default=None, metadata=_known(
        ClassWeights(("none", "balanced"), Number(0.0, LARGEST, above=True)), "cw", "weights", turn=8, off="none",
        classes=True,
        help="Weights of the training loss. One validation loss chooses the head: weighted if every head is balanced, "
        "else plain.",
    ))  # fmt: skip
    schedule: str = field(default="constant", metadata=_known(
        Choice(SCHEDULES), "", "schedule", turn=6, help="Learning rate: constant, or linear or cosine down to 0.",
    ))  # fmt: skip
    warmup: float = field(default=0.0, metadata=_known(
        SHARE, "wu", "warm-up", turn=7, scale="even",
        help="Share of the steps in which the learning rate rises from 0.",
    ))  # fmt: skip
    loss: str = field(default="nll", metadata=_known(
        Choice(tuple(LOSSES)), "", "loss", turn=9, classes=True,
        help=f"What is minimized: {'; '.join(f'{name}, {one.help}' for name, one in LOSSES.items())}.",
    ))  # fmt: skip
    focal_gamma: float = field(default=2.0, metadata=_known(
        Number(0.0, 1000.0), "g", "gamma", turn=10, scale="even", needs=("loss", "focal".__eq__),
        without="heads with another loss than focal have no focal-gamma",
        help="How much less the focal loss counts such rows. At 0 it is the negative log-likelihood.",
    ))  # fmt: skip

    def __post_init__(self) -> None:
        put = object.__setattr__  # frozen: only here
        for name, setting in SETTINGS.items():
            put(self, name, setting.values.check(name, getattr(self, name)))
        for name, setting in SETTINGS.items():
            if not setting.means(vars(self)):
                put(self, name, setting.absent)

    @property
    def name(self) -> str:
        """Short and unique for the settings, fit for a file name: ``h512-lr0.001-do0.1-wd0.01-s0``."""
        named = [(setting, getattr(self, name)) for name, setting in SETTINGS.items() if name != "seed"]
        parts = [
            f"{setting.short}{_in_name(value)}"
            for setting, value in named
            if setting.always or value != setting.default
        ]
        return "-".join([*parts, f"s{self.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types; ``HeadSpec.from_dict`` reads them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> HeadSpec:
        """The spec of such settings; those that are missing have their default. Raises EmbedcacheError."""
        if unknown := ", ".join(sorted(set(settings) - set(SETTINGS))):
            raise EmbedcacheError(f"unknown setting {unknown}; choose from {', '.join(SETTINGS)}")
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items()}
        return cls(**values)


# Name -> what is known of it, in the order of the fields, and in the order of a sweep, slowest to change first.
SETTINGS: dict[str, Setting] = {
    one.name: replace(
        one.metadata["setting"],
        name=one.name,
        default=one.default,
        off=one.default if one.metadata["setting"].off is None else one.metadata["setting"].off,
        absent=one.default if one.metadata["setting"].absent is None else one.metadata["setting"].absent,
    )
    for one in fields(HeadSpec)
}
SWEPT = dict(sorted(((n, s) for n, s in SETTINGS.items() if s.turn is not None), key=lambda one: one[1].turn or 0))
# What a table of heads shows of their settings in a notebook.
BRIEF = tuple(name for name, setting in SETTINGS.items() if setting.brief)


def weight_names(hidden: int) -> tuple[str, ...]:
    """The weights of a head of so many hidden units; a linear probe has the last layer's alone."""
    return WEIGHTS if hidden else WEIGHTS[2:]


def _in_name(value: Any) -> str:
    if isinstance(value, tuple):
        return "_".join(f"{one:g}" for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def head_grid(**settings: Any) -> list[HeadSpec]:
    """Every combination of the given values as a HeadSpec; the last named setting changes fastest.

    Each keyword is a setting of HeadSpec with one value or several: ``head_grid(lr=[1e-4, 1e-3], seed=range(4))``.
    Combinations that are the same head make one: repeated values, and linear probes that differ in dropout alone.
    Raises EmbedcacheError for an unknown setting, no values or a value out of range.
    """
    for name in settings:
        if name not in SETTINGS:
            raise EmbedcacheError(f"unknown setting {name!r}; choose from {', '.join(SETTINGS)}")
    axes = [list_values(SETTINGS[name], value) for name, value in settings.items()]
    specs = [HeadSpec(**dict(zip(settings, values, strict=True))) for values in itertools.product(*axes)]
    return list(dict.fromkeys(specs))
