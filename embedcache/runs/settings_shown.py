"""Every setting that a leaderboard may have as a column: those of heads, and those of finetune, which has some more."""

from __future__ import annotations

from embedcache.heads.settings import LARGEST, Choice, Number, Setting, Whole
from embedcache.heads.spec import SWEPT

SHARE = Number(0.0, 1.0)
# Name -> what is known of it, in the order of a sweep.
TUNED: dict[str, Setting] = {
    one.name: one
    for one in (
        Setting(Choice(()), "", "train", name="train", always=True, help="What is trained."),
        Setting(Choice(()), "", "pooling", name="pooling", always=True, help="Which vector the head reads."),
        Setting(
            Number(0.0, LARGEST, above=True), "hlr", "head lr", name="head_lr", always=True,
            help="Learning rates of the head.  [default: 1e-3]",
        ),
        Setting(
            Whole(1, 2**16), "bs", "batch", name="batch_size", default=32,
            help="Rows in a training step.  [default: 32]",
        ),
        Setting(Whole(1, 2**16), "ep", "epochs", name="epochs", help="Passes over the training rows.  [default: 5]"),
        Setting(
            Whole(1, 2**12), "r", "rank", name="width",
            needs=("train", lambda train: train.startswith(("lora", "adapter"))),
            help="Inner width of LoRA's products and of adapters.  [default: 8]",
        ),
        Setting(
            SHARE, "ld", "layers' dropout", name="layer_dropout", default=0.1,
            help="Dropout in the trained layers.  [default: 0.1]",
        ),
    )
}  # fmt: skip
SHOWN: dict[str, Setting] = {**{name: TUNED[name] for name in ("train", "pooling")}, **SWEPT, **TUNED}
