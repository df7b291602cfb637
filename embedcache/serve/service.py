"""What is served: a searched cache, the encoder, the best heads of a run, the map and the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from embedcache.cache.side_by_side import vectors_of
from embedcache.errors import EmbedcacheError
from embedcache.prediction.classifier import Prediction
from embedcache.prediction.explain import Occlusion
from embedcache.prediction.explain import explain as explain_answers
from embedcache.prediction.predictions import Predictions
from embedcache.prediction.rule import Reject, Threshold
from embedcache.search.searcher import Answer, Query, Searcher
from embedcache.serve.asked import OLD_ROWS, AskedTexts
from embedcache.serve.comparison import compare_runs
from embedcache.serve.kept import kept_columns
from embedcache.serve.label_session import LabelSession
from embedcache.serve.limits import Limits
from embedcache.serve.map import LiveMap
from embedcache.serve.micro_batches import Batcher
from embedcache.serve.served_run import OpenedRun, Output, ServedRun, fit_run, output_of_run, read_runs

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.encoder import Encoder

BATCH_CHARACTERS = 16_384  # of texts that are encoded together: some 4,000 tokens, a tenth of a second on two cores
TEXT_COST = 32  # characters that the shortest text counts as
TOKEN_COST = 8  # characters of a token, at the most: what is longer than max_length tokens is cut
BATCH_SEARCHES = 64


class TextVectors(NamedTuple):
    """A text's vector of each output, float32 [D], and how many tokens the encoder read."""

    vectors: list[np.ndarray]
    tokens: int


Vectors = dict[str, TextVectors]  # by text


class NoEncoderError(EmbedcacheError):
    """Texts cannot be encoded here."""


@dataclass(frozen=True)
class Search:
    """One /search: ``encoded`` has the vectors of the query's texts; ``rows``: it looks among these alone."""

    query: Query
    k: int
    where: tuple[str, ...] = ()
    dedupe: bool = False
    encoded: Vectors | None = None
    rows: tuple[int, ...] | None = None


class Service:
    """Everything that the routes need. Make one with ``open``; ``close`` finishes what was started.

    Attributes:
        cache, searcher: what is searched. map: the 2-D projection. kept: what the kept columns hold.
        runs: by name, in the order in which they were given; the first one answers where none is named.
        outputs: what the encoder makes of a text: pooling and layer of each vector.
        labelling: people labelling a column; None where labels may not be written.
        asked: how asked texts compare, by the first run; None without a run.
        no_encoder: why texts cannot be encoded; "" where they can.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        encoder: Encoder | None = None,
        no_encoder: str = "",
        runs: Sequence[OpenedRun] = (),
        limits: Limits | None = None,
        tell_batch: Callable[[str, int], None] = lambda kind, jobs: None,
    ) -> None:
        limits = limits or Limits()
        self.searcher, self.cache = searcher, searcher.cache
        self.limits, self.no_encoder, self.encoder = limits, no_encoder, encoder
        self.runs = {one.name: ServedRun(one, searcher.cache, encoder) for one in runs}
        self.asked = None if self.first is None else AskedTexts(self.first.calibrated(), self._old_rows)
        self.labelling: LabelSession | None = None
        self.kept = kept_columns(self.cache)
        self.map = LiveMap(searcher.cache, searcher.index.pooling, searcher.index.layer)
        self.tell_batch = tell_batch
        self._search_output = (searcher.index.pooling, searcher.index.layer)
        tuned = [one for one in self.runs.values() if one.tuned is not None]
        own = [one.output for one in self.runs.values() if one.tuned is None]
        self._by_cache_encoder: list[Output] = list(dict.fromkeys([self._search_output, *own]))
        self.outputs = [*self._by_cache_encoder, *(one.output for one in tuned)]
        self._tuned = tuned
        self._encoding = Batcher(
            "encoding",
            self._encode,
            cost=lambda texts: sum(map(self._text_cost, texts)),
            budget=BATCH_CHARACTERS,
            most_waiting=limits.waiting_characters,
            tell=lambda jobs: self.tell_batch("encoding", jobs),
        )
        self._searching = Batcher(
            "searching",
            self._search,
            budget=BATCH_SEARCHES,
            most_waiting=limits.waiting_searches,
            tell=lambda jobs: self.tell_batch("searching", jobs),
        )

    @classmethod
    def open(
        cls,
        cache: str | Path,
        *runs: str | Path,
        labels: str | Path | None = None,
        index: str | Path | None = None,
        pooling: str | None = None,
        layer: int | None = None,
        model: str | Path | None = None,
        device: str = "auto",
        trust_remote_code: bool = False,
        limits: Limits | None = None,
    ) -> Service:
        """Open all of it, the encoder too, and answer a first question, so that nobody waits for the first one.

        Without the encoder rows can still be searched: the service then says why in ``no_encoder``.

        Raises:
            EmbedcacheError: a cache, an index or a run that cannot be opened or do not belong together; a run that is
                given twice; a model that was asked for and is not the cache's.
        """
        from embedcache.encoder.hardware import resolve_device

        device = resolve_device(device)
        opened = read_runs(runs)
        if opened and pooling is None and layer is None and index is None:
            pooling, layer = output_of_run(opened[0].run, cache)
        searcher = Searcher.open(cache, labels=labels, index=index, pooling=pooling, layer=layer)
        try:
            for one in opened:
                fit_run(one, searcher.cache, device, trust_remote_code)
            own = [one.run.info["pooling"] for one in opened if one.tuned is None]
            poolings = {searcher.index.pooling, *own}
            encoder, no_encoder = _load_encoder(searcher.cache, poolings, model, device, trust_remote_code)
            service = cls(searcher, encoder=encoder, no_encoder=no_encoder, runs=opened, limits=limits)
        except BaseException:
            searcher.close()
            raise
        try:
            service.warm()
        except BaseException:
            service.close()
            raise
        return service

    def warm(self) -> None:
        """Whatever is loaded or compiled with the first question."""
        self.searcher.index.prepare()
        encoded = self._encode([("good",)])[0] if self.encoder is not None else None
        for run in self.runs.values() if encoded else ():  # weights that give no numbers show at once
            run.classifier.label(["good"], self._read_by(run, ["good"], encoded or {}))
        query = Query(("good",)) if encoded else Query((0,))
        try:
            self._search([Search(query, 1, encoded=encoded)])
        except EmbedcacheError:
            if encoded:
                raise
            # row 0 may be one that cannot be searched

    def close(self) -> None:
        self.map.close()
        if self.labelling is not None:
            self.labelling.close()
        if self.asked is not None:
            self.asked.close()
        self._encoding.close()
        self._searching.close()
        self.searcher.close()

    @property
    def waiting(self) -> dict[str, int]:
        """Jobs that have not started."""
        return {"encoding": self._encoding.waiting, "searching": self._searching.waiting}

    async def search(self, search: Search) -> Answer:
        """Raises EmbedcacheError: no such row, column or value; texts without an encoder."""
        if texts := search.query.texts:
            search = replace(search, encoded=await self._vectors(texts))
        return await self._searching.do(search)

    async def search_vector(self, vector: Sequence[float], search: Search) -> Answer:
        """What is most like a vector [D], in place of the query.

        Raises EmbedcacheError: one of another width, or of zeros; see ``search``.
        """
        dim = self.searcher.index.dim
        if len(vector) != dim:
            raise EmbedcacheError(f"the vector has {len(vector):,} numbers; those that are searched have {dim:,}")
        with np.errstate(over="ignore"):
            found = np.array(vector, np.float32)
        if not found.any() or not np.isfinite(found).all():
            raise EmbedcacheError("the vector has no direction: all of its numbers are zero, or one is too large")
        name = f"vector {blake2b(found.tobytes(), digest_size=8).hexdigest()}"  # others are searched for beside it
        known: Vectors = {name: TextVectors([found] * len(self.outputs), 0)}
        return await self._searching.do(replace(search, query=Query((name,)), encoded=known))

    @property
    def first(self) -> ServedRun | None:
        """The run that answers where none is named; None without a run."""
        return next(iter(self.runs.values()), None)

    def named(self, names: Sequence[str] | Literal["all"] | None) -> list[ServedRun]:
        """The runs of these names. Raises EmbedcacheError: no run is served, or none of that name."""
        if not self.runs:
            raise EmbedcacheError("no run is served, so nothing can be predicted: start serve with --run RUN")
        wanted = list(self.runs)[: None if names == "all" else 1] if names is None or names == "all" else names
        if not all(name in self.runs for name in wanted):
            raise EmbedcacheError(f"a run of another name is served: choose from {', '.join(self.runs)}")
        return [self.runs[name] for name in dict.fromkeys(wanted)]

    async def predict(
        self,
        texts: Sequence[str],
        *,
        runs: Sequence[str] | Literal["all"] | None = None,
        threshold: Threshold = None,
        reject: Reject = None,
        sure: float | None = None,
        explain: bool = False,
    ) -> dict[str, Predictions]:
        """What each of the named runs says of the texts, which are encoded once for all of them.

        Raises:
            EmbedcacheError: no run, or none of that name; no encoder; thresholds, probabilities or levels that a run
                does not know.
        """
        asked = self.named(runs)
        classifiers = [run.classifier_with(threshold, reject, sure) for run in asked]
        encoded = await self._vectors(texts)
        occlusion = Occlusion(texts) if explain and texts else None
        variants = {} if occlusion is None else await self._vectors(occlusion.variants)
        found = {}
        for run, classifier in zip(asked, classifiers, strict=True):
            vectors = self._read_by(run, texts, encoded)
            answers = classifier.answers(vectors)
            if occlusion is not None:
                occluded = classifier.outputs(self._read_by(run, occlusion.variants, variants))
                answers = explain_answers(answers, occlusion, occluded, vectors, run.training_rows)
            found[run.name] = Predictions(texts, answers)
            if self.asked is not None and run is self.first and texts:
                self.asked.add(texts, vectors, found[run.name])
        return found

    def predict_vectors(
        self,
        vectors: Sequence[Sequence[float]],
        *,
        runs: Sequence[str] | Literal["all"] | None = None,
        threshold: Threshold = None,
        reject: Reject = None,
        sure: float | None = None,
    ) -> dict[str, Predictions]:
        """What each of the named runs says of vectors that its heads read, as ``predict``. Nothing is encoded.

        Raises:
            EmbedcacheError: a vector of another width than a run reads, or too large a number; see also ``predict``.
        """
        found = {}
        for run in self.named(runs):
            classifier, dim = run.classifier_with(threshold, reject, sure), run.run.info["dim"]
            for place, one in enumerate(vectors):
                if len(one) != dim:
                    raise EmbedcacheError(f"vector {place} has {len(one):,} numbers; {run.name} reads {dim:,}")
            with np.errstate(over="ignore"):
                stored = run.stored(np.array(vectors, np.float32))
            found[run.name] = classifier.predict(vectors=stored)
        return found

    def _read_by(self, run: ServedRun, texts: Sequence[str], encoded: Vectors) -> np.ndarray:
        """What a run's heads read of texts, [n, D]."""
        place = self.outputs.index(run.output)
        return run.stored(np.array([encoded[text].vectors[place] for text in texts], np.float32))

    def _old_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and text hashes of rows of the cache, that what is asked is compared with."""
        assert self.first is not None
        if not self.first.is_stored:
            raise EmbedcacheError("the cache has no vectors such as the heads read")
        rows = np.sort(np.random.default_rng(0).permutation(self.cache.rows)[:OLD_ROWS])
        return np.asarray(vectors_of(self.cache, *self.first.output)[rows]), self.cache.hashes[rows]

    async def predict_row(self, row: int) -> dict[str, Prediction]:
        """What each run says of a row, from its stored vector if there is one; runs that cannot say are left out."""
        found = {}
        for run in self.runs.values():
            if run.is_stored:
                said = run.label_row(row)
            else:
                can = self.encoder is not None
                said = (await self.predict([self.cache.texts[row]], runs=[run.name]))[run.name] if can else None
            if said is not None:
                found[run.name] = said[0]
        return found

    @cached_property
    def comparisons(self) -> dict[str, dict[str, Any]]:
        """The runs on the same test rows, by label column, see ``compare_runs``; {} of fewer than two runs."""
        return compare_runs({name: one.run for name, one in self.runs.items()})

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Each text's vector of each of ``outputs``. Raises NoEncoderError."""
        return await self._vectors(texts)

    async def _vectors(self, texts: Sequence[str]) -> Vectors:
        """Many texts come as several jobs, one after another, so that others' texts are encoded between them."""
        if not texts:
            return {}
        if self.encoder is None:
            raise NoEncoderError(self.no_encoder)
        found: Vectors = {}
        part: list[str] = []
        cost = 0
        for text in dict.fromkeys(texts):
            if part and cost + self._text_cost(text) > BATCH_CHARACTERS:
                found |= await self._encoding.do(tuple(part))
                part, cost = [], 0
            part.append(text)
            cost += self._text_cost(text)
        return found | await self._encoding.do(tuple(part))

    def _text_cost(self, text: str) -> int:
        cut = self.encoder is not None and not self.encoder.chunk
        longest = TOKEN_COST * self.encoder.max_length if self.encoder and cut else len(text)
        return max(TEXT_COST, min(len(text), longest))

    def _encode(self, jobs: list[tuple[str, ...]]) -> list[Vectors]:
        """All texts of all jobs in one pass of each encoder, every output that anybody needs."""
        assert self.encoder is not None
        texts = list(dict.fromkeys(text for job in jobs for text in job))
        tokens = self.encoder.tokenize(texts)
        found = self.encoder.encode_tokens(tokens, self._by_cache_encoder)
        for run in self._tuned:
            assert run.tuned is not None
            found += run.tuned.encode_texts(texts, [(run.run.info["pooling"], run.run.info["layer"])])
        read = np.minimum(tokens.whole, self.encoder.max_length) if not self.encoder.chunk else tokens.whole
        known = {
            text: TextVectors(list(vectors), int(count))
            for text, *vectors, count in zip(texts, *found, read.tolist(), strict=True)
        }
        return [{text: known[text] for text in job} for job in jobs]

    def _search(self, jobs: list[Search]) -> list[Answer]:
        """Together what is searched among the same rows."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, job in enumerate(jobs):
            groups.setdefault((job.where, job.dedupe, job.rows), []).append(i)
        answers: dict[int, Answer] = {}
        place = self.outputs.index(self._search_output)
        for (where, dedupe, rows), members in groups.items():
            encoded = {text: one.vectors[place] for i in members for text, one in (jobs[i].encoded or {}).items()}
            k = max(jobs[i].k for i in members)
            queries = [jobs[i].query for i in members]
            how = {"where": where or None, "dedupe": dedupe, "rows": rows}
            found = self.searcher.search(queries, k, encoded=encoded, **how)
            for i, answer in zip(members, found, strict=True):
                answers[i] = replace(answer, results=answer.results[: jobs[i].k])
        return [answers[i] for i in range(len(jobs))]


def _load_encoder(
    cache: Cache, poolings: Iterable[str], model: str | Path | None, device: str, trust_remote_code: bool
) -> tuple[Encoder | None, str]:
    """(the encoder, "") or (None, why not)."""
    from embedcache.encoder.load_again import encoder_of

    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    try:
        return encoder_of(cache.encoder, str(cache.path), *poolings, model=model, has_option=True, **options), ""
    except EmbedcacheError as error:
        if model is not None:
            raise
        return None, str(error)
