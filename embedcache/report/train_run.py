"""The job of train-head: a cache in, a run with its report and model card out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

from embedcache.common.display import one_line
from embedcache.common.progress import Tell, no_tell
from embedcache.runs.job import HeadReport, train_head

P = ParamSpec("P")


@dataclass
class RunReport(HeadReport):
    """What train_run did; to_dict() is what --json prints."""

    documents: list[str]  # the report and the model card; empty where they could not be written


def _with_documents(train: Callable[P, HeadReport]) -> Callable[P, RunReport]:
    @functools.wraps(train)
    def train_run(*args: P.args, **kwargs: P.kwargs) -> RunReport:
        report = train(*args, **kwargs)
        tell = kwargs.get("tell")
        written = write_documents(report.run, tell if callable(tell) else no_tell)
        return RunReport(**vars(report), documents=written)

    train_run.__name__ = train_run.__qualname__ = "train_run"
    train_run.__annotations__ = {**train.__annotations__, "return": "RunReport"}
    return train_run


train_run = _with_documents(train_head)


def write_documents(run: str, tell: Tell) -> list[str]:
    """The report and the model card beside a run, which is safe in any case.

    ``tell`` is called with the reason where they cannot be written.
    """
    from embedcache.report import write_documents

    try:
        return write_documents(run)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted: {run} is finished; embedcache report {run} writes its report.") from None
    except Exception as error:
        reason = one_line(str(error)) or type(error).__name__
        tell(f"{run} is finished, but not its report and model card: {reason}")
        return []
