"""A process that appends labels to a journal and says each one that is acknowledged: JOURNAL WHO FIRST LAST."""

from __future__ import annotations

import sys

from embedcache.labelling import LabelEntry, LabelJournal


def entry(who: str, number: int) -> LabelEntry:
    """The same for the same number: a request that may be sent again."""
    return LabelEntry(
        row_hash=f"{number:032x}", column="label", after=f"class {number % 3}", who=who, id=f"{who}-{number}"
    )


if __name__ == "__main__":
    path, who, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    journal = LabelJournal(path)
    for number in range(first, last):
        (written,) = journal.append([entry(who, number)])
        print(written.id, flush=True)
