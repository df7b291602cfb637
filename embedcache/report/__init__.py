"""A run as one HTML file that needs no network, and as a model card. Importing this loads nothing.

Files, in the order in which to read them:

    contents              What a report shows: everything that the run folder keeps
    sections              The sections of a label column: data, baselines, leaderboard, curves, mistakes
    evaluation_sections   The sections on how good the chosen head is: classes, thresholds, calibration
    audit_section         The section on the data themselves
    ending                The sections that a run has once, for all its label columns: time, recipe
    mistakes              A mistake of the chosen head, as an item of the list of mistakes
    reading               What the encoder read of the texts, as facts of the data section
    names                 What settings, scores and baselines are called, and which of them are worth a word
    folding               A page that is read from top to bottom in a minute
    blocks                What a page is made of: sections of blocks that page.html knows how to show
    plots                 The pictures of a report: matplotlib's SVG
    page                  The page: blocks and plots through jinja2, which escapes every text
    card                  README.md of a run: a model card as Hugging Face has them
    card_code             The code in a run's card: how it is used, and the same model without embedcache
    audit_schema          What the report of a run reads of an audit's JSON
    train_run             A cache in, a run with its report and model card out
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.common.callable_module import make_callable
from embedcache.common.whole_file import open_output, whole_file
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.report.contents import ReportContents
    from embedcache.runs.folder import Run

__all__ = ["ReportFile", "write_documents", "write_report"]


@dataclass
class ReportFile:
    """A written report: its place, its size in bytes, and what it shows."""

    report: str
    bytes: int
    contents: ReportContents

    def to_dict(self) -> dict[str, Any]:
        """What --json prints: JSON types."""
        contents = self.contents
        return {
            "report": self.report,
            "bytes": self.bytes,
            "run": str(contents.path),
            "heads": contents.heads,
            "texts": contents.texts or "all there",
            "labels_from": contents.labels_from,
            "notes": contents.notes,
            **{name: contents.info.get(name) for name in ("engine", "train_seconds", "seconds", "times")},
            "audit": None if contents.audit is None else contents.audit["found"],
            "columns": {name: column.to_dict() for name, column in contents.columns.items()},
        }


def write_report(
    run: str | Path,
    output: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    labels: str | Path | None = None,
    audit: str | Path | None = None,
) -> ReportFile:
    """Write the report of a run into one file, RUN/report.html or ``output``, whole or not at all.

    Args:
        run: the run's folder.
        output: the file; None is RUN/report.html, "-" is standard output.
        cache: where the run's cache is now, from which the texts of the mistakes come. None: where training found it;
            if it is gone, the report is without those texts.
        labels: a journal of labels that people gave: mistakes whose label has changed since are marked. "none"; None:
            that beside the cache, if any.
        audit: what ``embedcache audit -o`` wrote, to be shown too. None: RUN/audit.json, if there is one.

    Raises:
        EmbedcacheError: the run is missing, incomplete or damaged, or the output cannot be written.
    """
    from embedcache.common.signed import REPORT
    from embedcache.report.audit_section import FILE, read_audit
    from embedcache.runs.folder import run_lock, with_run

    path = Path(run) / REPORT if output is None else Path(output)
    if path.is_dir():
        raise EmbedcacheError(f"{path} is a folder: name a file for the report with -o, such as {path / REPORT}")
    mine = output is None and Path(run).is_dir()
    with run_lock(run) if mine else nullcontext():
        if mine:
            check_own(path)
        audited = Path(audit) if audit is not None else Path(run) / FILE
        about = read_audit(audited) if audit is not None or audited.is_file() else None
        contents, page = with_run(run, lambda loaded: _make(loaded, cache, labels, about))
        return _write(path, contents, page)


def _write(path: Path, contents: ReportContents, page: str) -> ReportFile:
    from embedcache.common.signed import sign

    data = sign(page).encode()
    with open_output(path) as place, place.binary() as file:
        file.write(data)
    return ReportFile(place.name, len(data), contents)


def _make(
    run: Run, cache: str | Path | None, labels: str | Path | None, audit: dict[str, Any] | None
) -> tuple[ReportContents, str]:
    """What a report shows, and the page."""
    from embedcache.report.contents import read_contents
    from embedcache.report.page import make_page
    from embedcache.runs.folder import INFO

    try:
        contents = read_contents(run, cache, labels)
        contents.audit = audit
        return contents, make_page(contents)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise EmbedcacheError(f"{run.path / INFO} is damaged or not ours ({reason}); train it again") from error


def write_documents(run: str | Path) -> list[str]:
    """Write a run's report and model cards into its folder; returns where.

    Raises EmbedcacheError as write_report, and where one exists that embedcache did not write, or that was edited.
    """
    from embedcache.common.signed import REPORT, sign
    from embedcache.labelling.opened import NONE
    from embedcache.report.audit_section import FILE, read_audit
    from embedcache.report.card import make_cards
    from embedcache.runs.folder import INFO, run_lock, with_run

    def make(loaded: Run) -> tuple[list[tuple[Path, str]], tuple[ReportContents, str]]:
        try:
            cards = make_cards(loaded)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EmbedcacheError(f"{loaded.path / INFO} is damaged: no model card can be made ({error!r})") from None
        # Nobody has labelled anything since the training, whose own labels stand beside the mistakes.
        return cards, _make(loaded, None, NONE, read_audit(audited) if audited.is_file() else None)

    path, audited = Path(run) / REPORT, Path(run) / FILE
    with run_lock(run):
        cards, (contents, page) = with_run(run, make)  # read and checked once for all of them
        check_own(path)
        report = _write(path, contents, page).report
        for card, text in cards:
            check_own(card)
            with whole_file(card) as file:
                file.write(sign(text))
    return [report, *(str(card) for card, _ in cards)]


def check_own(path: Path) -> None:
    """Check that a document may be replaced.

    Raises:
        EmbedcacheError: embedcache did not write it, or it was edited since.
    """
    from embedcache.common.signed import is_signed

    if path.exists() and not is_signed(path):
        raise EmbedcacheError(
            f"{path} was not written by embedcache, or was edited since; nothing was changed: move it away first"
        )


make_callable(__name__, "embedcache.report", "write_report")
