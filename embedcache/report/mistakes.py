"""A mistake of the chosen head, as an item of the list of mistakes."""

from __future__ import annotations

from typing import Any

from embedcache.common.label_names import visible
from embedcache.common.screen import label_text
from embedcache.heads.kinds import kind_of


def mistake_item(kind: str, one: dict[str, Any]) -> tuple[list[str], str, str | None]:
    """Its line in parts (labels, and words between them), where it stands and what else is known, the text."""
    where = f"row {one['row']:,}" + (f", id {one['id']}" if one["id"] is not None else "") + label_now(one)
    about = kind_of(kind)
    if not about.has_classes:
        error = one["predicted"] - one["label"]
        return ["", f"{one['label']:.6g}, predicted {one['predicted']:.6g} ({error:+.4g})"], where, one["text"]
    if not about.exclusive:
        said = "has it" if one["about"] in one["label"] else "does not have it"
        line = [one["about"], f": {said}, probability {one['probability']:.3f}"]
        both = (", ".join(one[key]) or "none" for key in ("label", "predicted"))
        return line, "{}; labels: {}; predicted: {}".format(where, *both), one["text"]
    line = [
        visible(one["label"]),
        ", taken for ",
        visible(one["predicted"]),
        f" with probability {one['probability']:.3f}",
    ]
    return line, f"{where}; probability of the right class {one['label_probability']:.3f}", one["text"]


def label_now(one: dict[str, Any]) -> str:
    """What people have said of a mistake's label since, after a comma; nothing where they have not."""
    if "label_now" not in one:
        return ""
    return ", its label taken away since" if one["label_now"] is None else f", {label_text(one['label_now'])} since"
