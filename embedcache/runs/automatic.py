"""What the default recipe leaves to the data: which heads, how many epochs, when to stop, and on what to validate.

Few rows are a few steps an epoch: 60 rows take 2 where 12,000 take 340, so a fixed number of epochs leaves heads of
small data untrained. And a tenth of 60 rows is 6: whatever they choose is a lottery. So the number of epochs follows
from the number of steps, early stopping ends them, and few rows are validated on by folds. docs/recipes.md has the
measurements.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedcache.runs.recipes import Recipe

FEW_ROWS = 1000  # below, folds validate
FEWEST_UNITS = 20  # different texts or groups that can be cut into folds
FOLDS = 5
MANY_ROWS = 50_000  # above, one head: the sweep would take minutes and change little
HIDDEN, LR = (0, 512), (1e-4, 3e-4)  # of the sweep
STEPS = 2000  # of a head at least, but that it stops early
EPOCHS = 15, 1000  # the fewest, the most
PATIENCE = 3, 50  # epochs without a better one, of the fewest and of the most
SWEEP = frozenset({"hidden", "lr", "random", "epochs"})  # naming one of them names the heads
VALIDATION = frozenset({"val", "folds", "split_column", "same_split"})


@dataclass(frozen=True)
class Automatic:
    """What was settled by the data; ``said`` puts it into words, "" where nothing was.

    ``folds``: None for a share of the rows; ``early_stop``: epochs, 0 for never.
    """

    settings: Recipe
    folds: int | None
    early_stop: int
    said: str = ""


def settle(
    settings: Recipe,
    named: Collection[str],
    rows: Sequence[int],
    units: Sequence[int],
    *,
    folds: int | None = None,
    early_stop: int | None = None,
    regression: bool = False,
) -> Automatic:
    """The settings of the default recipe for columns of so many labelled rows, in so many different texts or groups.

    ``named``: settings that stay as they are. Naming ``epochs`` settles the training: so many epochs, a share of the
    rows to validate on, no early stopping. Naming hidden, lr or a random draw settles the heads. ``regression``: all
    columns are.
    """
    words = []
    few, many = min(rows), max(rows)
    if not SWEEP & set(named) and many <= MANY_ROWS:
        hidden = (0,) if regression and few < FEW_ROWS else HIDDEN
        swept: dict[str, Any] = {"hidden": hidden, "lr": LR}
        settings = replace(settings, **swept)
        heads = "linear probes" if hidden == (0,) else "linear probes and heads of 512 hidden units"
        words.append(f"{heads}, each with --lr {','.join(f'{lr:g}' for lr in LR)}")
    if "epochs" in named:
        return Automatic(settings, folds, early_stop or 0, _said(words, few))
    if few < FEW_ROWS and min(units) >= FEWEST_UNITS and not VALIDATION & set(named):
        folds, settings = FOLDS, replace(settings, val=0.0)
        words.append(f"--folds {FOLDS} in place of a share to validate on")
    trained = few * (1.0 - settings.test) * (1.0 - 1.0 / folds) if folds else few * (1.0 - settings.test - settings.val)
    steps = max(1, -(-int(trained) // settings.batch_size))
    settings = replace(settings, epochs=min(max(-(-STEPS // steps), EPOCHS[0]), EPOCHS[1]))
    validated, constant = bool(folds or settings.val), set(settings.schedule) == {"constant"}
    words.append(f"--epochs {settings.epochs}")
    if early_stop is None and validated and constant:  # a schedule ends with its last epoch
        early_stop = min(max(settings.epochs // 5, PATIENCE[0]), PATIENCE[1])
        words[-1] += f" at most, stopped {early_stop} after the best"
    return Automatic(settings, folds, early_stop or 0, _said(words, few))


def _said(words: Sequence[str], rows: int) -> str:
    return f"the default for {rows:,} rows: {'; '.join(words)}; options that are named win" if words else ""
