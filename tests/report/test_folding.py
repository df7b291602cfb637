"""What is folded: the rest of long tables and lists, and what few read; nothing of it is lost."""

from __future__ import annotations

import numpy as np

from embedcache.report import plots
from embedcache.report.blocks import Facts, Folded, Grid, Mistakes, Section
from embedcache.report.folding import fold


def table(rows: int, **more: bool) -> Grid:
    return Grid("Rows", ("n",), [[i] for i in range(rows)], **more)


def test_long_tables_and_lists_show_their_beginning() -> None:
    items = [(["a"], f"row {i}", None) for i in range(20)]
    short, behind = table(10), table(40, folded=True)
    (section,) = fold([Section("S", "s", [short, table(25), behind, Mistakes(items), Mistakes(items[:6])])])
    first, more, mistakes, others = section.blocks[1], section.blocks[2], section.blocks[4], section.blocks[5]
    assert section.blocks[0] is short and section.blocks[3] is behind
    assert isinstance(more, Folded) and isinstance(others, Folded)
    assert first.rows + more.blocks[0].rows == table(25).rows and len(first.rows) == 6
    assert more.summary == "19 more rows" and others.summary == "15 more"
    assert mistakes.items + others.blocks[0].items == items and others.blocks[0].start == len(mistakes.items) + 1 == 6
    assert section.blocks[6].items == items[:6], "one more is not worth a line that opens it"


def test_settings_and_versions_are_behind_a_line() -> None:
    recipe, time = fold([Section("Recipe", "recipe", [Facts([("lr", "1e-3")])]), Section("Time", "time", [table(3)])])
    (folded,) = recipe.blocks
    assert isinstance(folded, Folded) and folded.blocks[0].pairs == [("lr", "1e-3")]
    assert time.blocks == [table(3)]


def test_legends_stand_above_the_axes() -> None:
    with plots.drawing():
        axes = plots._axes("x", "y")
        for i in range(4):
            axes.plot([0, 1], [0, i], label=f"line {i}")
        before = axes.get_position().bounds[3] * axes.figure.get_figheight()
        plots._legend(axes)
        axes.figure.canvas.draw()
        box = axes.get_legend().get_window_extent().transformed(axes.transAxes.inverted())
        whole = axes.get_legend().get_window_extent().transformed(axes.figure.transFigure.inverted())
    assert box.y0 >= 1 and whole.y1 <= 1.001 and whole.x1 <= 1.001
    assert np.isclose(axes.get_position().bounds[3] * axes.figure.get_figheight(), before), "the picture is as large"


def test_long_numbers_leave_room_for_the_name_of_their_axis() -> None:
    """Of scores that hardly differ: the name was cut off at the left."""
    with plots.drawing():
        axes = plots._axes("epoch", "accuracy")
        axes.plot([1, 2], [0.7345, 0.7455])
        axes.figure.draw_without_rendering()
        before = axes.get_position().x1
        assert axes.get_tightbbox().x0 < 0
        plots._make_room(axes)
        axes.figure.draw_without_rendering()
        assert axes.get_tightbbox().x0 > 0 and axes.get_position().x1 == before


def test_a_flat_curve_does_not_push_the_others_out_of_the_picture() -> None:
    with plots.drawing():
        axes = plots._axes("epoch", "accuracy")
        axes.plot([1, 2, 3], [0.70, 0.72, 9.0])
        plots._keep_near(axes, np.array([0.740, 0.741]))
        low, high = axes.get_ylim()
    assert low < 0.70 and 0.741 < high < 1
