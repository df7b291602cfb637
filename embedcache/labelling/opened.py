"""Open a cache with the labels of its journal over its own: what every command does that reads labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedcache.cache import Cache, open_cache
from embedcache.errors import EmbedcacheError
from embedcache.labelling.journal import LabelJournal
from embedcache.labelling.overlay import Overlay

NONE = "none"


def open_labelled(cache: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> Cache:
    """Open a cache as ``open_cache`` does; ``Cache.labels_from`` says where labels come from.

    Args:
        cache: the file.
        labels: a journal, or its first entries: "reviews.h5.labels.jsonl@212"; "none": the file's own labels alone;
            None: the journal beside the cache, if there is one.

    Raises:
        EmbedcacheError: the cache or the journal cannot be read, there is no such journal, or it has fewer entries.
    """
    opened = open_cache(cache, labels=find_overlay(cache, labels))
    _ = opened.labels_from  # known from now on, also when the cache is closed
    return opened


def find_overlay(cache: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> Overlay | None:
    """What lies over the labels of a cache, see ``open_labelled``; None: nothing."""
    if labels == NONE:
        return None
    if labels is None:
        journal = LabelJournal.beside(cache)
        return Overlay.of(journal) if journal.exists else None
    journal, upto = named_journal(labels)
    if not journal.exists:
        raise EmbedcacheError(
            f"no such labels journal: {journal.path}; --labels none uses the labels of the cache alone"
        )
    overlay = Overlay.of(journal, upto)
    if upto is not None and len(journal) < upto:
        raise EmbedcacheError(f"--labels {labels}: {journal.path.name} has {len(journal):,} entries")
    return overlay


def named_journal(labels: str | os.PathLike[str]) -> tuple[LabelJournal, int | None]:
    """The journal of "PATH" or "PATH@N", and N."""
    path = os.fspath(labels)
    found = re.fullmatch(r"(.+)@(\d{1,12})", path)
    if found and not Path(path).exists():
        return LabelJournal(found[1]), int(found[2])
    return LabelJournal(path), None


def pinned_labels(cache: str | os.PathLike[str]) -> str:
    """The journal beside a cache up to its last entry of now, for ``open_labelled``; "none" where there is none."""
    journal = LabelJournal.beside(cache)
    journal.read()
    return f"{journal.path}@{len(journal)}" if journal.exists else NONE


def open_as_recorded(cache: str | os.PathLike[str], recorded: Mapping[str, Any] | None) -> Cache:
    """Open a cache with the labels that a run was trained with; recorded: ``Cache.labels_from``, as run.json has it.

    Raises:
        EmbedcacheError: the cache or the journal cannot be read, or the journal's lines of that time have changed.
    """
    if recorded is None or recorded.get("journal") is None:
        return open_cache(cache)
    journal, entries = LabelJournal(recorded["journal"]), int(recorded["entries"])
    if not journal.exists or journal.digest(entries) != recorded["digest"]:
        raise EmbedcacheError(f"{journal.path} does not hold the {entries:,} labels that the run was trained with")
    return open_cache(cache, labels=Overlay.of(journal, entries))


def labels_changed(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str | None:
    """What lay over the labels then and lies there now (``Cache.labels_from``), in words; None: the same."""
    if _identity(then) == _identity(now):
        return None
    keep = NONE if then is None or then["journal"] is None else f"{then['journal']}@{then['entries']}"
    return f"with {_entries(then)} then, with {_entries(now)} now; --labels {keep} takes those of then"


def _identity(about: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    return None if about is None or not about["entries"] else (about["entries"], about["digest"])


def _entries(about: Mapping[str, Any] | None) -> str:
    """What lies over a cache's labels, in words."""
    if about is None or not about["entries"]:
        return "the cache's own labels alone"
    name = "people's labels" if about["journal"] is None else Path(about["journal"]).name
    return f"{about['entries']:,} entr{'y' if about['entries'] == 1 else 'ies'} of {name}"


def notes_of(about: Mapping[str, Any] | None) -> list[str]:
    """What ``Cache.labels_from`` says in sentences; none where labels are the file's alone."""
    return [] if about is None else [labels_line(about), *about["notes"]]


def carried_notes(cache: str | os.PathLike[str]) -> list[str]:
    """What becomes of people's labels where a cache was made again: they go by content, and count for what is there."""
    try:
        overlay = find_overlay(cache)
        return [] if overlay is None else notes_of(open_cache(cache, labels=overlay).labels_from)
    except EmbedcacheError as error:
        return [f"the labels that people gave do not count until this is mended: {error}"]


def unread_notes(caches: Iterable[str | os.PathLike[str]], instead: str) -> list[str]:
    """What a command says that reads the caches' own labels alone, where people have labelled; ``instead``: what to do.

    One sentence for each cache with a journal beside it.
    """
    journals = [LabelJournal.beside(cache) for cache in caches]
    return [
        f"the labels that people gave in {one.path.name} are not taken over: {instead}"
        for one in journals
        if one.exists
    ]


def labels_line(about: Mapping[str, Any]) -> str:
    """What ``Cache.labels_from`` says, for a person: "212 labels from reviews.h5.labels.jsonl"."""
    labels = about["labels"]
    name = Path(about["journal"]).name if about["journal"] else "people"
    line = f"{labels:,} label{'' if labels == 1 else 's'} from {name}"
    if about["disagreements"]:
        line += f", {about['disagreements']:,} of them disputed (people differ; the last one counts)"
    if about["elsewhere"]:
        line += f"; {about['elsewhere']:,} of the journal's labels are of texts that this cache does not have"
    return line
