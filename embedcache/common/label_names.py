"""Names of classes that people mix up: alike in print, or one that stands for "not labelled"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# What people write for a missing label; here it is a class unless --na names it.
LIKE_MISSING = frozenset(
    "none nil na n/a n.a. nan null #n/a <na> - -- --- . ? ?? missing undefined unknown unlabeled unlabelled "
    "(blank) blank empty".split()
) | {"not available", "no label", "not labelled", "not labeled"}
SHOWN = 3  # groups of classes that are named in a note
PAGE = "docs/missing.md"


def visible(label: str) -> str:
    """The label; in quotes, with escapes, where white space or what is not printed could hide a difference.

    An accent that could be part of its letter, and is not, is one of these: "é" of two characters looks like one.
    """
    plain = label.isprintable() and label == " ".join(label.split())
    return label if plain and label == unicodedata.normalize("NFC", label) else quoted(label)


def quoted(label: str) -> str:
    """In quotes, with an escape for everything that cannot be seen."""
    if label == unicodedata.normalize("NFC", label):
        return repr(label)
    return "".join(f"\\u{ord(c):04x}" if _composes(c) else c for c in repr(label))


def _composes(c: str) -> bool:
    """An accent, the later parts of a Korean syllable, or a character that stands for another."""
    return bool(unicodedata.combining(c)) or "\u1160" <= c <= "\u11ff" or unicodedata.normalize("NFC", c) != c


def alike_key(label: str) -> str:
    """Equal for labels that differ in case, width, accents' encoding, white space or what is not printed alone."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    return " ".join(re.sub(r"\s+", " ", text).split())


def look_alikes(classes: Sequence[str]) -> list[list[int]]:
    """Groups of two classes or more, by their numbers, that look alike."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        groups.setdefault(alike_key(name), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def label_notes(column: str, classes: Sequence[str], counts: Sequence[int]) -> list[str]:
    """What is odd about the classes of a label column, with their rows, and what to do."""
    notes = []
    if groups := look_alikes(classes):
        named = [" and ".join(f"{quoted(classes[i])} ({counts[i]:,})" for i in group) for group in groups[:SHOWN]]
        more = f"; and {len(groups) - SHOWN:,} more" if len(groups) > SHOWN else ""
        notes.append(
            f"classes of {column!r} that look alike and are not one: {'; '.join(named)}{more}; "
            f"if they mean the same, write them alike in the table; see {PAGE}"
        )
    odd = [i for i, name in enumerate(classes) if name.strip().casefold() in LIKE_MISSING]
    if odd:
        named = [f"{classes[i]!r} ({counts[i]:,} {'row' if counts[i] == 1 else 'rows'})" for i in odd]
        is_a = "is a class" if len(odd) == 1 else "are classes"
        values = ",".join(classes[i].strip() for i in odd)
        notes.append(
            f'{", ".join(named)} of {column!r} {is_a}; if that means "not labelled", extract with '
            f"--na default,{values}; see {PAGE}"
        )
    return notes
