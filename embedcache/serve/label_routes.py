"""The routes by which people label: /labelling and below. They are there only where labels may be written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, StrictStr, StringConstraints

from embedcache.serve import limits
from embedcache.serve.label_session import GivenLabel, LabelSession
from embedcache.serve.schema import RequestBody, RowNumber

Name = Annotated[StrictStr, StringConstraints(max_length=200)]
Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=200)]
Class = Annotated[StrictStr, StringConstraints(min_length=1, max_length=1000)]
GivenValue = Class | Annotated[list[Class], Field(max_length=1000)] | StrictFloat | StrictInt | None
Label = str | list[str] | float | None
Errors = dict[int | str, dict[str, Any]]


class NextRequest(RequestBody):
    """Rows to label, for a person."""

    who: Name = Field("", description="The person's name; whoever has the token may give any.")
    count: Annotated[StrictInt, Field(ge=1, le=limits.MAX_LABELLED)] = 10
    queue: StrictStr = "mixed"
    held: Annotated[list[RowNumber], Field(max_length=1000)] = Field(
        [], description="Rows that the person has already."
    )
    among: Annotated[list[RowNumber], Field(min_length=1, max_length=limits.MAX_CHOSEN)] | None = Field(
        None, description="These rows, in this order, in place of a queue."
    )


class CommentAnswer(BaseModel):
    """What somebody wrote to a text."""

    who: str
    comment: str


class ShownRowAnswer(BaseModel):
    """A row to label: why it is shown, the model's guess, the label that it has now, what people wrote to it."""

    row: int
    text: str
    id: str | None
    queue: str
    reason: str
    guess: Label
    probability: float | None
    label: Label
    comments: list[CommentAnswer]


class NextAnswer(BaseModel):
    """Rows, the most useful first; none where none are left. notes: what cannot be had, and why."""

    rows: list[ShownRowAnswer]
    notes: list[str]


class GivenRequest(RequestBody):
    """What a person does with a row. A request with an id that is there already is not done again."""

    id: Id
    row: RowNumber
    action: Literal["label", "skip", "undo", "comment"] = "label"
    label: GivenValue = Field(None, description="A class, a list of them, a number; null: the row has no label.")
    who: Name = ""
    queue: Name = ""
    comment: Annotated[StrictStr, StringConstraints(max_length=limits.MAX_COMMENT)] = ""
    undoes: Id | None = Field(None, description="Of an undo: the id of what is taken back.")
    new: StrictBool = Field(False, description="Whether a name that is no class yet becomes one.")


class LabelsRequest(RequestBody):
    """Labels, skips, undos and comments, in their order."""

    labels: Annotated[list[GivenRequest], Field(min_length=1, max_length=limits.MAX_LABELLED)]


class WrittenAnswer(BaseModel):
    """An entry of the journal."""

    id: str
    number: int
    time: str


class LabelsAnswer(BaseModel):
    """All of them are on the disk."""

    written: list[WrittenAnswer]
    state: StateAnswer


class StateAnswer(BaseModel):
    """What is labelled. labelled: rows with a label; checked: those whose label a person gave."""

    column: str
    kind: str
    classes: list[str]
    counts: dict[str, int]
    rows: int
    labelled: int
    checked: int
    people: dict[str, int]
    journal: str
    queues: list[str]


class ScoreAnswer(BaseModel):
    """A score on some rows, with its 95% interval."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    rows: int


class CurvePoint(BaseModel):
    """The score over all labels given, when so many had been learned from."""

    labels: int
    value: float
    interval: tuple[float, float] | None


class ProgressAnswer(BaseModel):
    """How far the labelling is.

    validation: over all labels given, by heads that have not seen them; chance: over those of rows drawn by chance;
    before, after, gain: on the same test rows. estimates: docs/active_learning.md.
    """

    training: bool
    problem: str
    round: int
    seconds: float | None
    learned: int
    validation: ScoreAnswer | None
    chance: ScoreAnswer | None
    before: ScoreAnswer | None
    after: ScoreAnswer | None
    gain: dict[str, Any] | None
    curve: list[CurvePoint]
    estimates: dict[str, Any]
    disagreements: int


LabelsAnswer.model_rebuild()


def add_labelling(app: FastAPI, session: LabelSession, asked_errors: Errors, errors: Errors) -> None:
    """The routes. They run in threads: to write a label waits for the disk."""

    @app.get("/labelling", tags=["labelling"], summary="What is labelled, and by whom", responses=errors)
    def state() -> StateAnswer:
        return StateAnswer(**session.state())

    @app.post("/labelling/next", tags=["labelling"], summary="Rows to label next", responses=asked_errors)
    def next_rows(asked: NextRequest) -> NextAnswer:
        rows, notes = session.next(asked.who, asked.count, asked.queue, asked.held, asked.among)
        return NextAnswer(rows=[ShownRowAnswer(**vars(one)) for one in rows], notes=notes)

    @app.post(
        "/labelling/labels",
        tags=["labelling"],
        summary="Give labels; they are on the disk when it answers",
        responses=asked_errors,
    )
    def give(asked: LabelsRequest) -> LabelsAnswer:
        entries = session.give([GivenLabel(**one.model_dump()) for one in asked.labels])
        written = [WrittenAnswer(id=one.id, number=one.number, time=one.time) for one in entries]
        return LabelsAnswer(written=written, state=StateAnswer(**session.state()))

    @app.get("/labelling/progress", tags=["labelling"], summary="Scores, estimates, when to stop", responses=errors)
    def progress(who: Annotated[str, Query(max_length=200, description="Whose speed.")] = "") -> ProgressAnswer:
        return ProgressAnswer(**session.progress(who))
