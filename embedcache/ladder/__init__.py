"""A table or a cache in, every way to learn its labels out, in one table on the same test rows.

Files, in the order in which to read them:

    job       The door: ladder, the same arguments as its command
    rungs     The rungs by name, and why one does not suit an input
    settled   What was asked for, checked: the input, the encoders, the rungs, the folder
    table     A table's columns, read once for all encoders
    rows      The one split, and the test rows on which all rungs are scored
    speed     A quick measurement of this machine
    plan      What the rungs will take, from that
    steps     What one step does: extract, measure, one rung
    child     A step in a process of its own
    launch    Starts that process, and hears how it goes
    outcome   Scores, differences on the same rows, where to stop
    page      The ladder as one HTML file
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedcache.common.callable_module import make_callable

if TYPE_CHECKING:
    from embedcache.ladder.outcome import LadderReport, RungResult

__all__ = ["LadderReport", "RungResult"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'embedcache.ladder' has no attribute {name!r}")
    from embedcache.ladder import outcome

    return getattr(outcome, name)


make_callable(__name__, "embedcache.ladder.job", "ladder")
