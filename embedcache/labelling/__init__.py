"""Labels that people give: a journal beside the cache, and how it lies over the cache's own labels.

The cache and the input are never changed. docs/labelling.md tells the same story for people.

Files, in the order in which to read them:

    entry      One entry of a labels journal, and the line that it is in the file
    journal    The labels journal: a file beside the cache to which labels are appended, and which nothing ever changes
    overlay    What a journal says of a cache: which label counts, per column and text, and where people differ
    opened     Open a cache with the labels of its journal over its own
    corrected  The job of `embedcache labels`: a cache's table as people have corrected it, or the rows of the journal
    relabel    The job of `embedcache relabel`: labels that were given elsewhere come back into the journal
"""

from __future__ import annotations

from embedcache.labelling.entry import LabelEntry
from embedcache.labelling.journal import LabelJournal
from embedcache.labelling.opened import open_labelled
from embedcache.labelling.overlay import Given, Overlay

__all__ = ["Given", "LabelEntry", "LabelJournal", "Overlay", "open_labelled"]
