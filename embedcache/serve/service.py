"""What is served: a searched cache, the encoder, the best heads of a run, the map and the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import open_cache
from embedcache.common.int8_rows import as_stored
from embedcache.errors import EmbedcacheError
from embedcache.index import default_path
from embedcache.prediction.classifier import Classifier, Prediction, check_same_encoder
from embedcache.prediction.explain import Occlusion, TrainingRows
from embedcache.prediction.explain import explain as explain_answers
from embedcache.prediction.predictions import Predictions
from embedcache.prediction.rule import Reject, Threshold
from embedcache.runs.folder import Run, require_keys, with_run
from embedcache.search.searcher import Answer, Query, Searcher
from embedcache.serve.asked import OLD_ROWS, AskedTexts
from embedcache.serve.kept import kept_columns
from embedcache.serve.leaderboard import read_board
from embedcache.serve.limits import Limits
from embedcache.serve.map import LiveMap
from embedcache.serve.micro_batches import Batcher
from embedcache.serve.sides import TextSides

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.encoder import Encoder

BATCH_CHARACTERS = 16_384  # of texts that are encoded together: some 4,000 tokens, a tenth of a second on two cores
TUNED = "tuned run"  # in the place of a pooling: what the heads of a tuned run read
TEXT_COST = 32  # characters that the shortest text counts as
TOKEN_COST = 8  # characters of a token, at the most: what is longer than max_length tokens is cut
BATCH_SEARCHES = 64
RULES = 16  # thresholds and limits that are kept
Vectors = dict[str, list[np.ndarray]]  # text -> its vector of each output, float32 [D]


class NoEncoderError(EmbedcacheError):
    """Texts cannot be encoded here."""


@dataclass(frozen=True)
class Search:
    """One /search: ``encoded`` has the vectors of the query's texts."""

    query: Query
    k: int
    where: tuple[str, ...] = ()
    dedupe: bool = False
    encoded: Vectors | None = None


class Service:
    """Everything that the routes need. Make one with ``open``; ``close`` finishes what was started.

    Attributes:
        cache, searcher: what is searched. run, classifier: None without a run. map: the 2-D projection.
        kept: what the kept columns hold.
        board: the run's leaderboard and learning curves as JSON types, by column; {} without a run.
        no_encoder: why texts cannot be encoded; "" where they can.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        encoder: Encoder | None = None,
        no_encoder: str = "",
        run: Run | None = None,
        tuned: Encoder | None = None,
        board: dict[str, dict[str, Any]] | None = None,
        limits: Limits | None = None,
        tell_batch: Callable[[str, int], None] = lambda kind, jobs: None,
    ) -> None:
        limits = limits or Limits()
        self.searcher, self.cache, self.run = searcher, searcher.cache, run
        self.limits, self.no_encoder = limits, no_encoder
        self.encoder, self._tuned = encoder, tuned
        self.classifier = None if run is None else Classifier(run, tuned or encoder)
        self.asked = None if run is None else AskedTexts(_calibrated(run, tuned or encoder), self._old_rows)
        self._classifier = lru_cache(RULES)(self._make_classifier)  # by what is asked: its limits are worked out once
        self.board = board or {}
        self.kept = kept_columns(self.cache)
        self._sides = None if run is None else TextSides(run, self.cache)
        self.map = LiveMap(searcher.cache, searcher.index.pooling, searcher.index.layer)
        self.tell_batch = tell_batch
        self._search_output = (searcher.index.pooling, searcher.index.layer)
        self._head_output = self._search_output if run is None else _head_output(run, tuned is not None)
        self._outputs = list(dict.fromkeys([self._search_output, self._head_output]))
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
        run: str | Path | None = None,
        *,
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
            EmbedcacheError: a cache, an index or a run that cannot be opened or do not belong together; a model that
                was asked for and is not the cache's.
        """
        from embedcache.encoder.hardware import resolve_device

        device = resolve_device(device)
        loaded, board = (None, {}) if run is None else with_run(run, lambda one: (one, read_board(one)))
        if loaded is not None:
            require_keys(loaded, "encoder", "pooling", "layer", "dtype")
        if loaded is not None and pooling is None and layer is None and index is None:
            pooling, layer = _output_of_run(loaded, cache)
        searcher = Searcher.open(cache, index=index, pooling=pooling, layer=layer)
        try:
            tuned = None if loaded is None else _tuned_encoder(loaded, searcher.cache, device, trust_remote_code)
            if loaded is not None and tuned is None:
                check_same_encoder(loaded, searcher.cache)
            own = [] if loaded is None or tuned is not None else [loaded.info["pooling"]]
            poolings = {searcher.index.pooling, *own}
            encoder, no_encoder = _load_encoder(searcher.cache, poolings, model, device, trust_remote_code)
            heads: dict[str, Any] = {"run": loaded, "tuned": tuned, "board": board}
            service = cls(searcher, encoder=encoder, no_encoder=no_encoder, limits=limits, **heads)
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
        if self.classifier is not None and encoded:  # weights that give no numbers show at once
            self._labelled(["good"], encoded["good"][self._outputs.index(self._head_output)][None])
        query = Query(("good",)) if encoded else Query((0,))
        try:
            self._search([Search(query, 1, encoded=encoded)])
        except EmbedcacheError:
            if encoded:
                raise
            # row 0 may be one that cannot be searched

    def close(self) -> None:
        self.map.close()
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

    async def predict(
        self, texts: Sequence[str], *, threshold: Threshold = None, reject: Reject = None, explain: bool = False
    ) -> Sequence[Prediction]:
        """Raises EmbedcacheError: no run, no encoder; thresholds or probabilities that the run does not know."""
        if self.run is None:
            raise EmbedcacheError("no run is served, so nothing can be predicted: start serve with --run RUN")
        if not texts:
            return []
        classifier = self._classifier(threshold, reject)
        vectors = await self._head_vectors(texts)
        answers = classifier.answers(vectors)
        if explain:
            occlusion = Occlusion(texts)
            occluded = classifier.outputs(await self._head_vectors(occlusion.variants))
            answers = explain_answers(answers, occlusion, occluded, vectors, self._training_rows)
        predictions = Predictions(texts, answers)
        if self.asked is not None:
            self.asked.add(texts, vectors, predictions)
        return predictions

    async def _head_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """What the heads read of texts, [n, D]."""
        assert self.run is not None
        encoded, place = await self._vectors(texts) if texts else {}, self._outputs.index(self._head_output)
        vectors = np.array([encoded[text][place] for text in texts], np.float32).reshape(len(texts), -1)
        return as_stored(vectors if len(texts) else np.zeros((0, self.run.info["dim"]), np.float32), self._dtype)

    @property
    def _dtype(self) -> str:
        assert self.run is not None
        return str(self.run.info["dtype"])

    def _old_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and text hashes of rows of the cache, that what is asked is compared with."""
        if self._head_output not in self.cache.outputs:
            raise EmbedcacheError("the cache has no vectors such as the heads read")
        rows = np.sort(np.random.default_rng(0).permutation(self.cache.rows)[:OLD_ROWS])
        return np.asarray(self.cache.embeddings(*self._head_output)[rows]), self.cache.hashes[rows]

    def _make_classifier(self, threshold: Threshold, reject: Reject) -> Classifier:
        assert self.run is not None
        return Classifier(self.run, self._tuned or self.encoder, threshold=threshold, reject=reject)

    @cached_property
    def _training_rows(self) -> TrainingRows | None:
        """Those of the run, where the served cache is the one that it was trained on."""
        assert self.run is not None
        try:
            return TrainingRows(self.run, self.cache)
        except EmbedcacheError:
            return None

    async def predict_row(self, row: int) -> Prediction | None:
        """Predict for a row, from its stored vector if there is one; None if nothing can be predicted."""
        if self.classifier is None:
            return None
        text = self.cache.texts[row]
        if self._head_output in self.cache.outputs:
            vectors = self.cache.embeddings(*self._head_output)[row : row + 1]
            return self._labelled([text], vectors)[0] if np.isfinite(vectors).all() else None
        return (await self.predict([text]))[0] if self.encoder is not None else None

    def sides_of(self, text: str) -> dict[str, str | None]:
        """Label column of the run -> the side of its split that this very text was on."""
        assert self._sides is not None
        return self._sides.of(text)

    def _labelled(self, texts: list[str], vectors: np.ndarray) -> Sequence[Prediction]:
        assert self.classifier is not None
        return self.classifier.label(texts, as_stored(vectors, self._dtype))

    async def _vectors(self, texts: Sequence[str]) -> Vectors:
        """Many texts come as several jobs, one after another, so that others' texts are encoded between them."""
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
        """All texts of all jobs in one pass, every output that anybody needs."""
        assert self.encoder is not None
        texts = list(dict.fromkeys(text for job in jobs for text in job))
        found = self.encoder.encode_texts(texts, [one for one in self._outputs if one[0] != TUNED])
        if self._tuned is not None and self.run is not None:  # the last of the outputs
            found += self._tuned.encode_texts(texts, [(self.run.info["pooling"], self.run.info["layer"])])
        known = dict(zip(texts, map(list, zip(*found, strict=True)), strict=True))
        return [{text: known[text] for text in job} for job in jobs]

    def _search(self, jobs: list[Search]) -> list[Answer]:
        """Together what is searched among the same rows."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, job in enumerate(jobs):
            groups.setdefault((job.where, job.dedupe), []).append(i)
        answers: dict[int, Answer] = {}
        place = self._outputs.index(self._search_output)
        for (where, dedupe), members in groups.items():
            encoded = {text: both[place] for i in members for text, both in (jobs[i].encoded or {}).items()}
            k = max(jobs[i].k for i in members)
            queries = [jobs[i].query for i in members]
            found = self.searcher.search(queries, k, where=where or None, dedupe=dedupe, encoded=encoded)
            for i, answer in zip(members, found, strict=True):
                answers[i] = replace(answer, results=answer.results[: jobs[i].k])
        return [answers[i] for i in range(len(jobs))]


def _calibrated(run: Run, encoder: Encoder | None) -> Classifier:
    """With the run's temperatures, where it has them."""
    try:
        return Classifier(run, encoder, calibrated=True)
    except EmbedcacheError:
        return Classifier(run, encoder)


def _head_output(run: Run, tuned: bool) -> tuple[str, int]:
    """What the heads read, by a name that no vectors of the cache have where it is made by a tuned encoder."""
    return (TUNED if tuned else run.info["pooling"]), run.info["layer"]


def _tuned_encoder(run: Run, cache: Cache, device: str, trust_remote_code: bool) -> Encoder | None:
    """The encoder of a tuned run, where it is not the cache's. Raises EmbedcacheError: its base is gone or changed."""
    from embedcache.encoder.load_again import encoder_of

    if "tuned" not in run.info or run.info["encoder"]["identity"] == cache.encoder["identity"]:
        return None
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    return encoder_of(run.info["encoder"], str(run.path), run.info["pooling"], **options)


def _output_of_run(run: Run, path: str | Path) -> tuple[str | None, int | None]:
    """The vectors that the heads read, where the cache holds them and there is no index of others."""
    output = run.info["pooling"], run.info["layer"]
    with open_cache(path) as cache:
        return output if output in cache.outputs and not default_path(path).exists() else (None, None)


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
