"""The labels that are only named: what ``--labels`` says, a name and descriptions each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedcache.errors import EmbedcacheError

FORM = '--labels "name: description; name: description"'
NamedLabels = str | Sequence["str | TextLabel"] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class TextLabel:
    """A label.

    Attributes:
        name: what is predicted.
        descriptions: one or several ways to say it, by default the name alone.
    """

    name: str
    descriptions: tuple[str, ...]


def read_labels(given: NamedLabels, fewest: int = 2) -> list[TextLabel]:
    """The labels of ``--labels``, or what stands for it in Python.

    Args:
        given: "name: description; name" with ";" between labels and "|" between several descriptions of one, or
            "name,name"; "@FILE" has one label a line; a list of names; a dict of names and descriptions.
        fewest: How many there must be.

    Raises:
        EmbedcacheError: Fewer labels, an empty or repeated name, a description that two labels have.
    """
    if isinstance(given, str):
        labels = list(map(_parse, _parts(given)))
    elif isinstance(given, Mapping):
        labels = [
            TextLabel(name.strip(), _descriptions(name, [said] if isinstance(said, str) else said))
            for name, said in given.items()
        ]
    else:
        labels = [
            one if isinstance(one, TextLabel) else TextLabel(one.strip(), _descriptions(one, [one])) for one in given
        ]
    _check(labels, fewest)
    return labels


def _parts(given: str) -> list[str]:
    """Each label as it was written."""
    if not given.startswith("@"):
        between = ";" if ";" in given or ":" in given else ","  # names alone may have commas between them
        return [part for part in map(str.strip, given.split(between)) if part]
    path = Path(given[1:])
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise EmbedcacheError(f"--labels {given}: the file is not UTF-8 text; write one label a line") from None
    except OSError as error:
        raise EmbedcacheError(f"--labels {given}: {error.strerror}; name a file with one label a line") from None
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def _parse(part: str) -> TextLabel:
    name, colon, said = part.partition(":")
    return TextLabel(name.strip(), _descriptions(name, said.split("|") if colon else [name]))


def _descriptions(name: str, said: Iterable[str]) -> tuple[str, ...]:
    found = tuple(one.strip() for one in said)
    if not found or not all(found):
        raise EmbedcacheError(f"label {name.strip()!r} has an empty description: write one, or the name alone")
    return found


def _check(labels: Sequence[TextLabel], fewest: int) -> None:
    if len(labels) < fewest:
        found = f"only {labels[0].name!r}" if labels else "none"
        few = "two labels" if fewest > 1 else "one label"
        raise EmbedcacheError(f"at least {few} must be named, there is {found}: {FORM}")
    names, said = set[str](), dict[str, str]()
    for one in labels:
        if not one.name:
            raise EmbedcacheError(f"a label has no name, only the description {one.descriptions[0]!r}: {FORM}")
        if one.name in names:
            raise EmbedcacheError(f"label {one.name!r} is named twice: join its descriptions, 'name: one | two'")
        names.add(one.name)
        for description in one.descriptions:
            other = said.setdefault(description.casefold(), one.name)
            if other != one.name or one.descriptions.count(description) > 1:
                both = f"labels {other!r} and {one.name!r} have" if other != one.name else f"label {other!r} has twice"
                raise EmbedcacheError(f"{both} the same description {description!r}: say what differs")
