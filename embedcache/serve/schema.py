"""Requests and answers of the JSON API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, StringConstraints, model_validator

from embedcache.serve import limits

Text = Annotated[StrictStr, StringConstraints(max_length=limits.MAX_CHARACTERS)]
Vector = Annotated[
    list[Annotated[float, Field(strict=True, allow_inf_nan=False)]], Field(min_length=1, max_length=limits.MAX_NUMBERS)
]
Condition = Annotated[StrictStr, StringConstraints(min_length=1, max_length=limits.MAX_CONDITION)]
RowNumber = Annotated[StrictInt, Field(ge=0, le=2**62, description="A row of the cache, counted from 0.")]
Example = Text | RowNumber
Examples = Annotated[list[Example], Field(max_length=limits.MAX_EXAMPLES)]
Label = str | list[str] | float
Probability = Annotated[float, Field(gt=0, lt=1, strict=True)]
Side = Annotated[
    Literal["train", "val", "test"] | None,
    Field(description="The run's split that has this very text: a prediction for a training text is not a test."),
]

Reason = Annotated[Literal["unsure", "unfamiliar"] | None, Field(description="Why there is no label.")]


class RequestBody(BaseModel):
    """Unknown fields are refused: a misspelled one would go unnoticed."""

    model_config = ConfigDict(extra="forbid")


class PredictRequest(RequestBody):
    """Texts to label, or vectors of the cache's encoder, such as imported ones: one of the two."""

    texts: Annotated[list[Text], Field(max_length=limits.MAX_TEXTS)] | None = None
    vectors: Annotated[list[Vector], Field(max_length=limits.MAX_TEXTS)] | None = Field(
        None, description="What the run's heads read, where vectors come from elsewhere. Nothing is encoded."
    )
    threshold: Literal["tuned"] | Probability | None = Field(
        None, description="From which probability the second of two classes, or each of several labels, is predicted."
    )
    reject: Literal["auto"] | Probability | None = Field(
        None, description="No label below this calibrated probability, nor for texts unlike the training rows."
    )
    sure: Probability | None = Field(
        None, description="Of a run with a hierarchy: the deepest level of at least this calibrated probability."
    )
    runs: Literal["all"] | Annotated[list[StrictStr], Field(min_length=1, max_length=limits.MAX_RUNS)] | None = Field(
        None, description="Which of the served runs answer, by name; the first of them also in the answer's own fields."
    )
    explain: bool = Field(
        False, description=f"Which words carry the label, and rows for and against; of {limits.MAX_EXPLAINED} texts."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"texts": ["A tender, funny film."]}, {"texts": ["Dull."], "reject": "auto", "explain": True}],
            "oneOf": [{"required": [name]} for name in ("texts", "vectors")],
        }
    )

    @model_validator(mode="after")
    def _texts_or_vectors(self) -> PredictRequest:
        if (self.texts is None) == (self.vectors is None):
            raise ValueError("give texts or vectors, one of the two")
        if self.explain and self.texts is None:
            raise ValueError("explain needs texts: vectors alone have no words")
        if self.explain and len(self.texts or ()) > limits.MAX_EXPLAINED:
            raise ValueError(f"explain takes {limits.MAX_EXPLAINED} texts at most")
        return self


class SearchRequest(RequestBody):
    """What the results should be like: a text, a row, or several of them, at least one; and what they should not.

    Or a vector of the cache's encoder, alone.
    """

    vector: Vector | None = Field(None, description="What to look for, where vectors come from elsewhere.")
    query: Text | None = Field(None, description="A text; it may not be blank.")
    row: RowNumber | None = None
    like: Examples = Field([], description="More examples: texts and rows.")
    unlike: Examples = Field([], description="Texts and rows that the results should not be like.")
    k: Annotated[StrictInt, Field(ge=1, le=limits.MAX_K)] = 10
    where: Condition | Annotated[list[Condition], Field(max_length=limits.MAX_WHERE)] | None = Field(
        None, description='Only rows that meet conditions on label and kept columns, such as "label=positive".'
    )
    dedupe: bool = Field(False, description="Leave out texts that are near-identical to a better result.")
    among: Annotated[list[RowNumber], Field(min_length=1, max_length=limits.MAX_CHOSEN)] | None = Field(
        None, description="Look among these rows alone."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "too long", "k": 5}, {"row": 7}],
            "anyOf": [{"required": [name]} for name in ("query", "row", "like", "vector")],
        }
    )

    @model_validator(mode="after")
    def _something_to_be_like(self) -> SearchRequest:
        examples = self.query is not None or self.row is not None or bool(self.like)
        if not examples and self.vector is None:
            raise ValueError("give at least one of query, row, like and vector")
        if self.vector is not None and (examples or self.unlike):
            raise ValueError("vector stands alone, without query, row, like and unlike")
        return self


class ErrorMessage(BaseModel):
    """The same line, where OpenAI's clients look for it."""

    message: str


class ErrorAnswer(BaseModel):
    """Every error: one line for people."""

    detail: str
    error: ErrorMessage | None = Field(None, description="Of routes below /v1/ alone.")


class WordAnswer(BaseModel):
    """A word of the text, by its characters, and what the probability of the label loses without it."""

    word: str
    start: int
    end: int
    effect: float


class NeighbourAnswer(BaseModel):
    """A training row near the text."""

    row: int
    similarity: float
    text: str
    label: Label


class ExplanationAnswer(BaseModel):
    """Words with the largest effects on the label (null: a value), and training rows that have it and that have not."""

    label: str | None
    words: list[WordAnswer]
    nearest: int
    agreeing: int
    supporting: list[NeighbourAnswer]
    opposing: list[NeighbourAnswer]


class LevelAnswer(BaseModel):
    """A node of a hierarchy, on one level."""

    level: str
    label: str
    probability: float


Levels = Annotated[
    list[LevelAnswer] | None, Field(description="Of a run with a hierarchy: the path to the label, from the top.")
]


class ColumnPrediction(BaseModel):
    """What one label column's head says; reason: why there is no label."""

    label: Label | None
    probabilities: dict[str, float]
    side: Side = None
    reason: Reason = None
    explanation: ExplanationAnswer | None = None
    levels: Levels = None


class RunPrediction(BaseModel):
    """What one run's best head says of the text, see PredictionAnswer."""

    label: Label | None
    probabilities: dict[str, float]
    side: Side = None
    reason: Reason = None
    explanation: ExplanationAnswer | None = None
    levels: Levels = None
    columns: dict[str, ColumnPrediction] | None = None


class PredictionAnswer(RunPrediction):
    """What the run's best head says of one text.

    A class; the labels above 1/2 of a column of lists; the value of a regression, whose probabilities are empty. Of
    several label columns ``columns`` has each, and the rest is that of the first. Where texts may be refused a label,
    it is null for those that are, and ``reason`` says why.
    """

    text: str = Field(description="Empty where a vector was given.")
    runs: dict[str, RunPrediction] | None = Field(None, description="By name, where several runs are served or asked.")


class FoundAnswer(BaseModel):
    """One row that was found: rank from 1, row from 0, cosine, and what the cache knows of it."""

    rank: int
    row: int
    score: float
    text: str
    labels: dict[str, str | list[str] | None]
    id: str | None
    columns: dict[str, str]


class SearchAnswer(BaseModel):
    """The rows found, best first, and the query in words."""

    query: str
    results: list[FoundAnswer]


class RowAnswer(BaseModel):
    """One row of the cache, and what the runs' best heads say of it (null without a run)."""

    row: int
    text: str
    labels: dict[str, str | list[str] | None]
    id: str | None
    columns: dict[str, str]
    prediction: PredictionAnswer | None


class HealthAnswer(BaseModel):
    """The server is up."""

    status: Literal["ok"]


class LabelColumn(BaseModel):
    """A label column: "classification" or "multilabel" (lists), rows without a label, rows of each class."""

    kind: str
    missing: int
    classes: dict[str, int]


class KeptColumn(BaseModel):
    """A kept column: "classes" (few different values and their rows), "number" (from low to high) or "text"."""

    kind: Literal["classes", "number", "text"]
    values: dict[str, int]
    low: float | None
    high: float | None


class IndexAnswer(BaseModel):
    """What is searched: kind of index, recall@10 where it is not exact, and the vectors it holds."""

    kind: str
    recall: float | None
    pooling: str
    layer: int | str


class RunAnswer(BaseModel):
    """A run that predicts."""

    name: str
    columns: dict[str, str] = Field(description="Label column -> classification, multilabel or regression.")
    levels: list[str] | None = Field(None, description="Of a run with a hierarchy: its levels, from the top.")
    pooling: str
    layer: int | str


class InfoAnswer(BaseModel):
    """What is served, and what one request may ask for."""

    version: str
    cache: str
    rows: int
    dim: int
    poolings: list[str]
    labels: dict[str, LabelColumn]
    columns: list[str]
    kept: dict[str, KeptColumn] = Field(description="What the first kept columns hold.")
    id_column: str | None
    fingerprint: str
    encoder: str
    texts: bool = Field(description="Whether texts can be encoded; if not, why_no_texts says why.")
    why_no_texts: str
    notes: list[str] = Field(description="What the encoder did not read of the texts, or does not know; odd labels.")
    index: IndexAnswer
    run: RunAnswer | None = Field(description="The first one: it answers where none is named.")
    runs: list[RunAnswer]
    labelling: bool = Field(description="Whether labels may be written here, see /labelling.")
    role: Literal["all", "label"] = Field("all", description="What this token may do.")
    limits: dict[str, int]


class GroupAnswer(BaseModel):
    """Points of one colour. Role: class, bin (of numbers, in order), several, other, none (no label).

    Place: of a class, the number of its colour and shape.
    """

    name: str
    rows: int
    role: str
    place: int | None


class MapAnswer(BaseModel):
    """Whether the map is there, and the groups of each label and kept column by which points are coloured.

    /map/points has the places, /map/groups/{column} the number of each row's group in the list given here.
    """

    status: Literal["computing", "ready", "failed"]
    problem: str
    rows: int
    groups: dict[str, list[GroupAnswer]]


class AmongRequest(RequestBody):
    """Conditions, as in a search."""

    where: Annotated[list[Condition], Field(max_length=limits.MAX_WHERE)]


class BoardAnswer(BaseModel):
    """A label column's heads, best first, with their settings and scores, and their learning curves by epoch."""

    kind: str
    score: str
    count: int
    settings: list[str] = Field(description="The settings in which the heads differ.")
    scores: list[str] = Field(description="The scores that the heads have, the main one first.")
    drawn: list[str] = Field(description="The scores that the curves may have.")
    titles: dict[str, str] = Field(description="What settings, scores and baselines are called.")
    heads: list[dict[str, int | float | str | None]]
    test: dict[str, Any]
    baselines: dict[str, Any]
    curves: dict[str, dict[str, list[float | None]]]


class RunScore(BaseModel):
    """A run's score on the compared texts, and its 95% interval."""

    run: str
    score: float
    interval: tuple[float, float] | None


class RunDifference(BaseModel):
    """The score of the first run less that of the second, paired; within_noise: the interval includes 0."""

    first: str
    second: str
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    within_noise: bool


class ComparisonAnswer(BaseModel):
    """The runs on the texts that are test rows in all of them; problem: why there are none."""

    score: str
    texts: int
    changed: int = Field(description="Texts that are left out, for the runs learned different labels of them.")
    runs: list[RunScore]
    pairs: list[RunDifference]
    problem: str


class LeaderboardAnswer(BaseModel):
    """By label column, of the first run; empty without a run."""

    columns: dict[str, BoardAnswer]
    others: dict[str, dict[str, BoardAnswer]] = Field(description="The other runs' boards, by name.")
    comparisons: dict[str, ComparisonAnswer] = Field(description="Of label columns that several runs have.")
