"""The pictures of a report: matplotlib's SVG, to stand inline in a page that colours them for light, dark and print.

Every function returns one <svg> without fixed size, ids that could clash, dates or outside names; the same numbers give
the same bytes. Drawn are numbers and fixed words alone, never a text from the data.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError

# What matplotlib draws in these colours the page's style sheet colours: name of the variable -> stand-in.
COLORS = {"ink": "#010101", "muted": "#020202", "one": "#030303", "two": "#040404", "three": "#050505"}
INK, MUTED, ONE, TWO, THREE = COLORS.values()
WIDTH, HEIGHT = 4.6, 3.1  # inches
STYLE = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": False,
    "font.family": ["sans-serif"],
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.6,
    "savefig.transparent": True,
    "svg.fonttype": "none",  # letters stay letters: small, and read aloud
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib as it comes, whatever this machine's settings are, and silent (its font cache, say)."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        style = _style()
        with style.context(["default", STYLE]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _style() -> Any:
    try:
        from matplotlib import style
    except Exception as error:  # not there, or MPLBACKEND and the like are of no use to it
        raise EmbedcacheError(
            f"matplotlib, which draws the report, cannot be loaded: {error} (pip install 'embedcache[heads]')"
        ) from None
    return style


def _axes(xlabel: str, ylabel: str, height: float = HEIGHT, left: float = 0.62) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, height))
    margins = {"left": left / WIDTH, "right": 1 - 0.2 / WIDTH, "bottom": 0.5 / height, "top": 1 - 0.14 / height}
    figure.subplots_adjust(**margins)
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    return axes


def _svg(axes: Any, name: str) -> str:
    import matplotlib as mpl

    _make_room(axes)
    nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"embedcache-{name}"}):  # ids differ from picture to picture
        axes.figure.savefig(out, format="svg", metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore[union-attr]
    svg = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {width} {height}" aria-hidden="true" focusable="false">', svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)  # the page's letters
    for variable, color in COLORS.items():
        svg = svg.replace(color, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg).strip()


def _make_room(axes: Any) -> None:
    """On the left, where the numbers of the y axis are so long that its name would leave the picture."""
    axes.figure.draw_without_rendering()
    lacking = 0.03 - axes.get_tightbbox().x0 / axes.figure.bbox.width
    if lacking > 0:
        left, bottom, wide, tall = axes.get_position().bounds
        axes.set_position((left + lacking, bottom, wide - lacking, tall))


def learning_curves(name: str, score: str, epochs: np.ndarray, lines: dict[str, np.ndarray], others: np.ndarray) -> str:
    """One score over the epochs (from 1): lines of the chosen head, [epochs] each, and the others [heads, epochs]."""
    axes = _axes("epoch", score)
    count = np.isfinite(others).sum(axis=0)
    there = count > 0
    if len(others) == 1 and there.any():
        axes.plot(epochs, others[0], color=MUTED, lw=1, ls=(0, (4, 2)), label="the other head")
    elif len(others) and there.any():
        low, middle, high = np.nanpercentile(others[:, there], [10, 50, 90], axis=0)
        axes.fill_between(epochs[there], low, high, color=MUTED, alpha=0.22, lw=0, label="others, 10% to 90%")
        axes.plot(epochs[there], middle, color=MUTED, lw=1, ls=(0, (4, 2)), label="others, median")
    for (label, values), color in zip(lines.items(), (ONE, TWO), strict=False):
        axes.plot(epochs, values, color=color, marker="o" if len(epochs) < 30 else None, ms=3, label=label)
    _whole_ticks(axes, epochs)
    _keep_near(axes, np.concatenate([values[np.isfinite(values)] for values in lines.values()]))
    _legend(axes)
    return _svg(axes, name)


def _legend(axes: Any) -> None:
    """Above the picture, in two columns: never on a curve."""
    rows = -(-len(axes.get_legend_handles_labels()[1]) // 2)
    figure, extra = axes.figure, 0.08 + 0.19 * rows  # inches
    (left, bottom, wide, tall), height = axes.get_position().bounds, figure.get_figheight()
    figure.set_figheight(height + extra)
    scale = height / (height + extra)
    axes.set_position((left, bottom * scale, wide, tall * scale))
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, borderaxespad=0, handlelength=1.6, columnspacing=1.2
    )


def _keep_near(axes: Any, values: np.ndarray) -> None:
    """The chosen head's curve stays readable where others went astray: their band may leave the picture."""
    low, high = values.min(), values.max()
    room = max(3 * (high - low), abs(high) / 10) or 1.0
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - room), min(top, high + room))


def _whole_ticks(axes: Any, epochs: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)


def distribution(name: str, score: str, values: np.ndarray, marks: dict[str, float]) -> str:
    """How the heads' scores are spread [heads]; marks: what stands out, a line each."""
    from matplotlib.ticker import MaxNLocator

    axes = _axes(score, "heads")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    span = [*values, *marks.values()]
    bins = min(30, max(8, round(len(values) ** 0.5)))
    axes.hist(values, bins=bins, color=ONE, alpha=0.45, lw=0)
    styles: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.5))]
    for (label, value), line, color in zip(marks.items(), styles, (ONE, TWO, THREE), strict=False):
        axes.axvline(value, color=color, ls=line, label=label)
    pad = 0.04 * (max(span) - min(span) or 1)
    axes.set_xlim(min(span) - pad, max(span) + pad)
    _legend(axes)
    return _svg(axes, name)


def spread(name: str, score: str, ranges: Sequence[tuple[float, float, float]]) -> str:
    """What the seed changes: (lowest, mean, highest) of settings 1, 2, ..., from the top."""
    axes = _axes(score, "setting", height=0.8 + 0.24 * len(ranges), left=0.5)
    low, mean, high = np.array(ranges).T
    places = np.arange(1, len(ranges) + 1)
    axes.hlines(places, low, high, color=ONE, lw=4, alpha=0.35)
    axes.plot(mean, places, "o", color=ONE, ms=5)
    axes.set_yticks(places, [str(i) for i in places])
    axes.set_ylim(len(ranges) + 0.6, 0.4)
    return _svg(axes, name)


def compared(
    name: str, score: str, rows: Sequence[tuple[str, float, tuple[float, float] | None]], ours: int = 0
) -> str:
    """Scores beside each other: (what, value, its 95% interval or None), from the top; ``ours`` stands out."""
    axes = _axes(score, "", height=0.75 + 0.34 * len(rows), left=1.35)
    for place, (_, value, interval) in enumerate(rows):
        color = ONE if place == ours else TWO
        if interval is not None:
            axes.hlines(place, *interval, color=color, lw=4, alpha=0.35)
        axes.plot(value, place, "o" if place == ours else "s", color=color, ms=6)
        axes.annotate(f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.margins(x=0.12)
    return _svg(axes, name)


def reliability(name: str, lines: dict[str, list[dict[str, Any]]]) -> str:
    """Share that was right over the confidence, of bins as calibration.Bin; the diagonal is perfect."""
    axes = _axes("confidence", "share that is right", height=3.4)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 2)), label="perfect")
    for (label, bins), color, marker in zip(lines.items(), (ONE, TWO), ("o", "s"), strict=False):
        x, y = ([one[key] for one in bins] for key in ("confidence", "accuracy"))
        axes.plot(x, y, color=color, marker=marker, ms=4, label=label)
    low = min((one["confidence"] for bins in lines.values() for one in bins), default=0)
    axes.set_xlim(max(0.0, low - 0.05), 1.01)
    axes.set_ylim(0, 1.03)
    _legend(axes)
    return _svg(axes, name)


def confidence_rows(name: str, bins: list[dict[str, Any]]) -> str:
    """How many decisions had which confidence."""
    axes = _axes("confidence", "decisions", height=3.4)
    edges = [one["low"] for one in bins]
    axes.bar(edges, [one["rows"] for one in bins], [one["high"] - one["low"] for one in bins], align="edge",
             color=ONE, alpha=0.5, lw=0)  # fmt: skip
    axes.set_xlim(max(0.0, min(edges, default=0) - 0.05), 1.01)
    return _svg(axes, name)


def kept_rows(name: str, points: Sequence[dict[str, float]]) -> str:
    """Accuracy over the share of rows that are kept, the least sure ones left out first."""
    axes = _axes("rows kept", "accuracy")
    axes.plot([one["kept"] for one in points], [one["accuracy"] for one in points], color=ONE)
    axes.set_xlim(0, 1)
    return _svg(axes, name)


def thresholds(name: str, points: Sequence[dict[str, float]]) -> str:
    """Precision, recall and F1 of one class over the threshold of its probability."""
    axes = _axes("threshold", "score")
    at = [one["threshold"] for one in points]
    for key, label, color in (("precision", "precision", ONE), ("recall", "recall", TWO), ("f1", "F1", THREE)):
        axes.plot(at, [one[key] for one in points], color=color, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower left")
    return _svg(axes, name)


def heat_map(name: str, matrix: np.ndarray) -> str:
    """A confusion matrix of many classes: the darker, the larger the share of the row's class. Numbers from 1."""
    from matplotlib.ticker import MaxNLocator

    axes = _axes("predicted class", "class", height=WIDTH - 0.1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*shares.shape, 4), np.float32)
    pixels[..., :3] = (0.25, 0.5, 0.85)  # a picture in the picture: one colour that light and dark both show
    pixels[..., 3] = np.where(shares > 0, 0.12 + 0.88 * shares, 0)
    axes.grid(False)
    axes.imshow(pixels, interpolation="none", extent=(0.5, len(matrix) + 0.5, len(matrix) + 0.5, 0.5), aspect="auto")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=2))
    return _svg(axes, name)


def predicted_values(name: str, pairs: np.ndarray) -> str:
    """Predicted over true values [n, 2]; the diagonal is perfect."""
    axes = _axes("true value", "predicted value", height=3.6)
    span = [pairs.min(), pairs.max()]
    axes.plot(span, span, color=MUTED, lw=1, ls=(0, (4, 2)), label="perfect")
    axes.plot(pairs[:, 0], pairs[:, 1], ".", color=ONE, ms=4, alpha=0.5, mew=0)
    _legend(axes)
    return _svg(axes, name)


def residuals(name: str, pairs: np.ndarray) -> str:
    """How the errors (predicted - true) are spread."""
    axes = _axes("predicted - true", "rows", height=3.6)
    axes.hist(pairs[:, 1] - pairs[:, 0], bins=min(40, max(8, round(len(pairs) ** 0.5))), color=ONE, alpha=0.5, lw=0)
    axes.axvline(0, color=MUTED, lw=1, ls=(0, (4, 2)))
    return _svg(axes, name)
