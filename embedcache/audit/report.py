"""What an audit has found: as data, as JSON, as a CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.audit.count import ErrorCount
from embedcache.common.display import html_table
from embedcache.common.frames import Tabular
from embedcache.common.whole_file import Output, open_output
from embedcache.errors import EmbedcacheError
from embedcache.tables.read import suffixes
from embedcache.tables.write import OutputFormat, TableLayout, output_format

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = (
    "issue", "rank", "row", "id", "text", "label", "suggested", "score", "probability", "suggested_probability",
    "wrong", "read", "heads", "neighbours", "words", "group", "kind", "similarity", "split"
)  # fmt: skip
READ = ("first", "then", "beyond")  # up to the estimate, up to the interval's end, after it


@dataclass(frozen=True)
class AuditRow:
    """A row of the cache as it is shown; ``split``: its side, None where no split was named."""

    row: int
    id: str | None
    text: str
    label: str | None
    split: str | None


@dataclass(frozen=True)
class LabelIssue(AuditRow):
    """A row whose label is likely wrong.

    ``score`` is 1 - ``probability``, that of its own label; ``suggested`` is the likeliest other label. ``wrong``: how
    likely the label is a wrong one, which is less where the text is merely hard. ``read``: one of READ. ``heads``,
    ``neighbours`` and ``words``: what each of them by itself makes of its own label (None: not asked).
    """

    suggested: str
    score: float
    probability: float
    suggested_probability: float
    wrong: float
    read: str
    heads: float
    neighbours: float
    words: float | None


@dataclass(frozen=True)
class Duplicates:
    """Rows with much the same text: duplicates.DuplicateGroup, with the rows written out."""

    kind: str
    similarity: float
    conflict: bool
    across: bool
    rows: list[AuditRow]


@dataclass(frozen=True)
class Outlier(AuditRow):
    """A row that is like no others; ``score``: mean cosine distance to its nearest neighbours, 0 to 2."""

    score: float


@dataclass
class AuditReport(Tabular):
    """What audit_cache found. Lists are worst first; ``found`` counts them before --top cuts them."""

    cache: str
    label: str
    classes: list[str]
    rows: int
    judged: int  # rows whose label was looked at
    not_judged: dict[str, int]  # why -> rows
    pooling: str
    layer: int
    group: str | None
    split: str | None
    folds: int
    seeds: list[int]
    neighbours: int
    near: float
    outlier_score: float | None  # above it a row is an outlier
    weights: dict[str, float]  # of the heads', the neighbours' and the words' opinion
    agreement: float  # share of the judged rows whose own label is the likeliest
    errors: ErrorCount  # how many labels are wrong, and how far down ``labels`` to read
    engine: str
    seconds: float
    found: dict[str, int]  # label, duplicate, across, conflict, outlier -> how many
    labels: list[LabelIssue]
    duplicates: list[Duplicates]
    outliers: list[Outlier]
    notes: list[str]
    labels_from: dict[str, Any] | None  # the journal that was read, see docs/labelling.md

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self) | {"errors": self.errors.to_dict()}

    def to_arrow(self) -> pa.Table:
        """A line for each of the CSV's, with the columns FIELDS; null where there is nothing to say."""
        import pyarrow as pa

        numbers = {"rank", "row", "group"}
        texts = {"issue", "id", "text", "label", "suggested", "read", "kind", "split"}
        types = {
            name: pa.int64() if name in numbers else pa.string() if name in texts else pa.float64() for name in FIELDS
        }
        return pa.Table.from_pylist(self.records(), pa.schema(types))

    def _repr_html_(self) -> str:
        """For notebooks: the likeliest label errors; the rest is counted."""
        found = self.found
        low, high = self.errors.interval
        title = f"about {self.errors.estimate:,} label errors ({low:,} to {high:,}) among {self.judged:,} rows "
        title += f"of {self.label}; "
        title += f"{found['duplicate']:,} groups of duplicates, {found['outlier']:,} outliers"
        rows = ((one.row, one.label, one.suggested, one.score, one.text) for one in self.labels)
        return html_table(title, ("row", "label", "suggested", "score", "text"), rows)

    def records(self) -> list[dict[str, Any]]:
        """A record for every line of the CSV, with the keys FIELDS; None where there is nothing to say."""
        lines: list[dict[str, Any]] = []
        for rank, one in enumerate(self.labels, 1):
            lines.append({"issue": "label", "rank": rank, **asdict(one)})
        for group, many in enumerate(self.duplicates, 1):
            about = {"group": group, "kind": many.kind, "similarity": many.similarity}
            lines += [{"issue": "duplicate", "rank": group, **asdict(one), **about} for one in many.rows]
        for rank, outlier in enumerate(self.outliers, 1):
            lines.append({"issue": "outlier", "rank": rank, **asdict(outlier)})
        return [{field: line.get(field) for field in FIELDS} for line in lines]


@dataclass(frozen=True)
class ReportPlace:
    """Where an audit goes: a table, and beside it (not beside a stream) the whole report as JSON."""

    kind: OutputFormat
    table: Output
    document: Output | None


@contextmanager
def open_place(path: str | Path) -> Iterator[ReportPlace]:
    """Before the work begins. Raises EmbedcacheError unless a table and the JSON beside it may be written there."""
    kind, document = output_format(path), beside_table(path)
    with ExitStack() as ends:
        table = ends.enter_context(open_output(path))
        if table.is_stream:
            yield ReportPlace(kind, table, None)
            return
        if document.name == Path(path).name:
            raise EmbedcacheError(
                f"-o {path}: name a table such as a .csv; the whole report goes into a .json beside it"
            )
        yield ReportPlace(kind, table, ends.enter_context(open_output(document)))


def beside_table(path: str | Path) -> Path:
    """audit.csv, audit.csv.gz -> audit.json"""
    path = Path(path)
    ends = sum(map(len, suffixes(path)))
    return path.with_name(path.name[: len(path.name) - ends] + ".json")


def write_report(report: AuditReport, place: ReportPlace) -> None:
    """The lines as a table, and the whole report as JSON. Raises EmbedcacheError where they cannot be written."""
    table = report.to_arrow()
    with place.kind.open(place.table, TableLayout(table.schema.names, list(table.schema.types))) as writer:
        writer.write([_short(column) for column in table.columns])
    if place.document is not None:
        with place.document.text() as file:
            json.dump(report.to_dict(), file, ensure_ascii=False, indent=1, allow_nan=False)


def _short(column: Any) -> Any:
    """Scores to six digits; all else as it is."""
    import pyarrow as pa

    if not pa.types.is_floating(column.type):
        return column
    return [None if value is None else float(f"{value:.6g}") for value in column.to_pylist()]
