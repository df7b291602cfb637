"""One entry of a labels journal, and the line that it is in the file.

    {"time":"2026-11-28T01:40:00+00:00","who":"ada","action":"label",...,"sum":"0123456789abcdef"}

``sum`` is the BLAKE2b of all bytes of the line before ``,"sum"``: a line that was cut off or changed shows.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Annotated, Any, Literal

from msgspec import Meta

from embedcache.common.checked import LARGEST, SchemaError, conform, parse_json
from embedcache.errors import EmbedcacheError
from embedcache.tables.rows import MISSING_LABELS

SUM_BYTES = 8
MOST_LINE = 1 << 20  # bytes
MOST_NAME = 200  # characters of an id, of a person, of a reason
_MARK = b',"sum":"'
_ENDING = len(_MARK) + 2 * SUM_BYTES + len(b'"}')

Action = Literal["label", "skip", "undo", "comment"]
Value = str | tuple[str, ...] | int | float | None  # a class, a list of labels, a number, not labelled
Name = Annotated[str, Meta(min_length=1, max_length=MOST_NAME)]
Words = Annotated[str, Meta(max_length=MOST_NAME)]


@dataclass(frozen=True, kw_only=True)
class LabelEntry:
    """What one person did to one text in one column, once.

    Attributes:
        row_hash: the text, by its content: 32 hex digits, a row of ``Cache.hashes``.
        column: the label column.
        action: "label"; "skip", it was shown and not decided; "undo" of an earlier entry; "comment".
        after: of a label what the person gave: a class, a tuple of labels, a number, or None (it has no label).
        before: what the row had when it was shown.
        who: the person.
        queue: why it was shown.
        comment: what the person wrote to it.
        undoes: of an undo the id of the entry that no longer counts. An undo can be undone.
        id: made by the client, so that a request that is sent twice is written once.
        time: UTC, ISO 8601; the journal writes it where it is "".
        number: its place in the journal, from 1; 0 before it is there.
    """

    row_hash: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    column: Annotated[str, Meta(min_length=1)]
    action: Action = "label"
    after: Value = None
    before: Value = None
    who: Words = ""
    queue: Words = ""
    comment: str = ""
    undoes: Name | None = None
    id: Name = field(default_factory=lambda: uuid.uuid4().hex)
    time: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        for name in ("before", "after"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))

    def undo(self, who: str, **more: Any) -> LabelEntry:
        """The entry that undoes this one; more: other attributes of it, such as its id."""
        return LabelEntry(
            row_hash=self.row_hash, column=self.column, action="undo", undoes=self.id, who=who,
            before=self.after, after=self.before, **more,
        )  # fmt: skip

    def same_request(self, other: LabelEntry) -> bool:
        """Whether two entries of one id ask for the same: what the client does not decide may differ."""
        names = ("row_hash", "column", "action", "after", "who", "undoes")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return json.loads(json.dumps(asdict(self)))


_ORDER = ("time", "who", "action", "column", "before", "after", "queue", "comment", "undoes", "row_hash", "id")
_DEFAULTS = {one.name: one.default for one in fields(LabelEntry)}


def checked(entry: LabelEntry) -> LabelEntry:
    """The entry as a journal takes it, with its time. Raises EmbedcacheError for one that it does not take."""
    try:
        found = conform(asdict(entry), LabelEntry)
        _check(found)
    except (SchemaError, UnicodeEncodeError) as error:
        reason = error if isinstance(error, SchemaError) else "half a surrogate pair is not a character"
        raise EmbedcacheError(f"this label cannot be written: {reason}") from None
    return found if found.time else replace(found, time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"))


def line_of(entry: LabelEntry) -> bytes:
    """The line of a checked entry, without its end; what has its default is left out."""
    about = {name: getattr(entry, name) for name in _ORDER}
    kept = {name: value for name, value in about.items() if name == "after" or value != _DEFAULTS[name]}
    if entry.action != "label" and entry.after is None:
        del kept["after"]
    kept["action"] = entry.action
    ordered = {name: kept[name] for name in _ORDER if name in kept}
    start = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return start + _MARK + _sum(start).encode() + b'"}'


def entry_of(line: bytes, number: int) -> LabelEntry:
    """The entry of a line. Raises SchemaError for one that is damaged."""
    start, mark = line[:-_ENDING], line[-_ENDING : len(_MARK) - _ENDING]
    if mark != _MARK or line[len(_MARK) - _ENDING :] != f'{_sum(start)}"}}'.encode():
        raise SchemaError("its checksum does not hold")
    found = conform(parse_json(start + b"}"), LabelEntry)
    _check(found)
    return replace(found, number=number)


def _sum(start: bytes) -> str:
    return blake2b(start, digest_size=SUM_BYTES).hexdigest()


def _check(entry: LabelEntry) -> None:
    """Raises SchemaError, UnicodeEncodeError."""
    if (entry.undoes is not None) != (entry.action == "undo"):
        raise SchemaError("undoes belongs to an undo, and to nothing else")
    if entry.time and not re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]{5,15}(Z|[+-]\d\d:\d\d)?", entry.time):
        raise SchemaError(f"time must be ISO 8601, not {entry.time[:40]!r}")
    for value in (entry.before, entry.after):
        if isinstance(value, tuple):
            if len(set(value)) < len(value):
                raise SchemaError("a list holds one label twice")
            names: tuple[Any, ...] = value
        else:
            names = (value,)
        for name in names:
            if isinstance(name, str) and name.strip() in MISSING_LABELS:
                raise SchemaError(f"{name!r} is not a label: give another name, or null for none")
            if isinstance(name, (int, float)) and not abs(name) <= LARGEST:
                raise SchemaError(f"{name} is not a finite number")
    texts = (entry.column, entry.who, entry.queue, entry.comment, entry.id, entry.undoes or "", *_names(entry))
    together = "".join(texts)
    together.encode()
    if "\0" in together:
        raise SchemaError("it holds a NUL character")
    if len(together) > MOST_LINE // 8:
        raise SchemaError(f"it is longer than {MOST_LINE // 8:,} characters")


def _names(entry: LabelEntry) -> list[str]:
    both = (entry.before, entry.after)
    return [
        name
        for value in both
        for name in ((value,) if isinstance(value, str) else value if isinstance(value, tuple) else ())
    ]
