"""What a comparison with a baseline says, for screen, page, card and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedcache.runs.baselines import BASELINES
from embedcache.runs.scores import title

CONSTANT = tuple(one.name for one in BASELINES.values() if not one.reads)  # those that learn nothing
WORSE = 0.005  # of a calibration error; less is not worth a word


def baseline_name(name: str, long: bool = False) -> str:
    """What a baseline is called in a table, or ``long`` in a sentence; an unknown name is its own."""
    one = BASELINES.get(name)
    return name if one is None else one.long if long else one.title


def in_words(one: Mapping[str, Any], long: bool = False) -> str:
    """better than TF-IDF + logreg by 0.020 accuracy (95% interval -0.010 to 0.050: within noise)."""
    name, what, difference = baseline_name(one["with"], long), title(one["metric"]), one["difference"]
    if difference == 0:
        return f"just as good as {name} by {what}"
    than = "better" if difference > 0 else "worse"
    said = f"{than} than {name} by {abs(difference):.3f} {what}"
    if one["interval"] is None:
        return f"{said} (too few rows or groups for an interval)"
    low, high = one["interval"]
    noise = ": within noise" if one["within_noise"] else ""
    return f"{said} (95% interval {low:.3f} to {high:.3f}{noise})"


def worth_saying(best: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The comparisons with baselines that learn, by the metric of best["compared_by"]."""
    metric = best.get("compared_by")
    return [one for one in comparisons if one["metric"] == metric and one["with"] not in CONSTANT]


def temperature_note(evaluation: Mapping[str, Any] | None) -> str | None:
    """A note where the temperature makes the calibration error on the test rows larger."""
    before, after = ((evaluation or {}).get(key) for key in ("calibration", "calibration_scaled"))
    if not before or not after or after["ece"] <= before["ece"] + WORSE:
        return None
    return (
        f"the temperature makes the calibration on the test rows worse (ECE {before['ece']:.3f}, {after['ece']:.3f} "
        "with it): predict without --calibrated"
    )
