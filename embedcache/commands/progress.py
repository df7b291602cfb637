"""Progress bars and tables on a terminal; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from embedcache.common.progress import Progress


@contextmanager
def progress_bar(title: str, unit: str = "rows", *, steps: str = "") -> Iterator[Progress | None]:
    """A bar with rows, rows/s and time left; yields None (no bar) when stderr is not a terminal.

    ``steps``: what the bar's units are called; then they are counted on the screen in place of the rows.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    counted = "{task.fields[done]:,}/{task.fields[all]:,} " + steps if steps else "{task.fields[rows]:,} " + unit
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(counted + "  {task.fields[rate]:,.0f} " + unit + "/s"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(title, start=False, total=1.0, done=0, all=0, rows=0, rate=0.0)

    def update(done: int, total: int, rows: int) -> None:
        bar.start_task(task)
        bar.start()  # at the first call: an error before the work starts is then all that is shown
        if done < bar.tasks[0].fields["done"]:
            bar.reset(task)  # the job's next phase
        elapsed = bar.tasks[0].elapsed or 0.0
        # As a share: rich forgets its estimate of the time left whenever a total changes, and ours is an estimate.
        rate = rows / elapsed if elapsed > 0.5 else 0.0
        bar.update(task, completed=done / max(total, 1), done=done, all=total, rows=rows, rate=rate)

    try:
        yield update
    finally:
        bar.stop()
