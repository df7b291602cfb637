"""What the report of a run reads of an audit's JSON."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from embedcache.common.checked import Count, Number


class AuditRow(msgspec.Struct):
    row: Count
    id: str | None
    text: str
    label: str | None
    split: str | None


class LabelIssue(AuditRow):
    suggested: str
    suggested_probability: Number
    heads: Number | None
    neighbours: Number | None
    words: Number | None


class Duplicates(msgspec.Struct):
    kind: str
    rows: list[AuditRow]


class Outlier(AuditRow):
    score: Number


class FoundCounts(msgspec.Struct):
    label: Count
    duplicate: Count
    across: Count
    outlier: Count


class ClassErrors(msgspec.Struct):
    label: str
    rows: Count
    estimate: Count
    interval: tuple[Count, Count]


class Read(msgspec.Struct):
    rows: Count
    expected: Number
    first: Count
    expected_first: Number


class Errors(msgspec.Struct):
    estimate: Count
    interval: tuple[Count, Count]
    per_class: list[ClassErrors]
    read: Read


class Audit(msgspec.Struct):
    cache: str
    label: str
    rows: Count
    judged: Count
    split: str | None
    weights: dict[str, Number]
    found: FoundCounts
    labels: list[LabelIssue]
    duplicates: list[Duplicates]
    outliers: list[Outlier]
    errors: Errors | UnsetType = UNSET  # audits of version 0.1 have none
