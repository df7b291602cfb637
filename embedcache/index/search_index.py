"""An index of vectors by cosine: built from a cache, searched by texts or vectors, kept in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.common.display import html_table
from embedcache.common.frames import Tabular, arrow_table
from embedcache.common.int8_rows import Int8Rows, Matrix
from embedcache.common.progress import Progress
from embedcache.common.whole_file import Output
from embedcache.errors import EmbedcacheError
from embedcache.index import file_format
from embedcache.index.build import Planned, restored
from embedcache.index.build import build as build_engine
from embedcache.index.exact import StoredRows, mean_of, scores_of, top, unit_length
from embedcache.index.file_format import About, SpoiltError
from embedcache.index.ownership import make_again, vectors_of

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcache.encoder.encoder import Encoder


@dataclass(frozen=True)
class Neighbours(Tabular):
    """What q queries found: ``rows`` int64 [q, k] and ``scores`` float32 [q, k] (cosine, -1 to 1), best first."""

    rows: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def to_arrow(self) -> pa.Table:
        """A line for each row found: query (its number, from 0), rank (from 1), row, score."""
        query, rank = (np.ravel(place) for place in np.indices(self.rows.shape))
        there = np.flatnonzero(self.rows.ravel() >= 0)  # -1: fewer than k were there
        columns = {"query": query, "rank": rank + 1, "row": self.rows.ravel(), "score": self.scores.ravel()}
        return arrow_table({name: values[there] for name, values in columns.items()})

    def _repr_html_(self) -> str:
        """For notebooks."""
        found = (
            (q, rank + 1, int(row), float(score))
            for q in range(len(self.rows))
            for rank, (row, score) in enumerate(zip(self.rows[q], self.scores[q], strict=True))
        )
        title = f"Neighbours of {len(self.rows):,} queries"
        return html_table(title, ("query", "rank", "row", "score"), found)


class SearchIndex:
    """All rows' vectors at unit length, searched by inner product. Any number of threads may search at once.

    A row that is zero or holds NaN or infinity has no direction: its score is 0 for every query.

    Attributes:
        about: what it is: kind, rows, dim, recall asked and measured, parameters, what it was made from.
        encoder: the cache's description of its encoder, with which texts are encoded; None from bare vectors.
    """

    def __init__(self, about: About, rows: StoredRows, engine: Any, *, own_vectors: bool) -> None:
        self.about, self._rows, self._engine = about, rows, engine
        self._own_vectors = own_vectors
        self._loaded: Encoder | None = None

    def __repr__(self) -> str:
        centred = ", centered" if self.center else ""
        return f"SearchIndex({self.kind}, {self.rows:,} rows x {self.dim}, {self.pooling}{centred})"

    @property
    def rows(self) -> int:
        """N."""
        return self.about.rows

    @property
    def dim(self) -> int:
        """D."""
        return self.about.dim

    @property
    def kind(self) -> str:
        return self.about.kind

    @property
    def encoder(self) -> dict[str, Any] | None:
        return self.about.encoder

    @property
    def pooling(self) -> str:
        """Which of the encoder's vectors these are, with ``layer``."""
        return self.about.pooling

    @property
    def layer(self) -> int:
        return self.about.layer

    @property
    def center(self) -> bool:
        """Whether the mean of all rows was taken off, of queries too."""
        return self.about.center

    @property
    def recall(self) -> float:
        """recall@10 as measured against exact; 1 for exact."""
        return self.about.measured

    @property
    def parameters(self) -> dict[str, Any]:
        return self.about.parameters

    @classmethod
    def build(
        cls,
        cache: Cache | str | Path,
        pooling: str | None = None,
        layer: int = -1,
        *,
        kind: str = "auto",
        recall: float = 0.99,
        center: bool = False,
        device: str = "auto",
        progress: Progress | None = None,
        planned: Planned | None = None,
    ) -> SearchIndex:
        """Index a cache's vectors.

        Args:
            cache: an open cache, or the path of one.
            pooling: which vectors; None means model, else cls, else the first stored.
            layer: which vectors; -1 is the last layer.
            kind: "auto", or a kind of index that docs/search.md lists; see ``plan.choose``.
            recall: the recall@10 to reach, above 0 to 1, as measured on 1,000 of the rows; 1 means exact.
            center: take the mean of all rows off before they are brought to unit length, and off queries.
            device: "auto" (a GPU if FAISS finds one), "cpu" or "cuda[:N]".
            progress: called with (thousandths done, 1000, rows done).
            planned: called with the ``Plan`` before anything is built.

        Raises:
            EmbedcacheError: the cache cannot be opened, has no such vectors, is incomplete or has no rows; FAISS is
                missing.
        """
        if not isinstance(cache, Cache):
            with open_cache(cache) as opened:
                options: dict[str, Any] = {"device": device, "progress": progress, "planned": planned}
                return cls.build(opened, pooling, layer, kind=kind, recall=recall, center=center, **options)
        if not cache.rows:
            raise EmbedcacheError(f"{cache.path} has no rows to search: extract some texts into it first")
        pooling = pooling or cache.preferred(layer)
        X = cache.embeddings(pooling, layer)
        options = {"kind": kind, "recall": recall, "device": device, "progress": progress, "planned": planned}
        index = cls._of(X, center, own_vectors=False, **options)
        about = index.about
        about.pooling, about.layer, about.encoder = pooling, layer, cache.encoder
        about.cache, about.fingerprint = str(cache.path), cache.fingerprint
        about.digest = file_format.rows_digest(cache, pooling, layer, cache.rows)
        return index

    @classmethod
    def from_vectors(
        cls,
        X: Any,
        *,
        kind: str = "auto",
        recall: float = 0.99,
        center: bool = False,
        device: str = "auto",
        progress: Progress | None = None,
        planned: Planned | None = None,
    ) -> SearchIndex:
        """Index [N, D] vectors: a NumPy array (float16, memory-mapped, ...), vectors of a cache or a torch tensor.

        See ``build`` for the options.
        """
        stored = X if isinstance(X, Int8Rows) else np.atleast_2d(_as_array(X))
        options = {"kind": kind, "recall": recall, "device": device, "progress": progress, "planned": planned}
        return cls._of(stored, center, own_vectors=True, **options)

    @classmethod
    def _of(cls, X: Matrix, center: bool, *, own_vectors: bool, **options: Any) -> SearchIndex:
        if not len(X):
            raise EmbedcacheError("there are no vectors to search: give at least one")
        rows = StoredRows(X, mean_of(X) if center else None)
        engine, found = build_engine(rows, **options)
        about = About(rows=len(X), dim=X.shape[1], center=center, **found)
        return cls(about, rows, engine, own_vectors=own_vectors)

    def search(self, queries: Any, k: int = 10, *, among: np.ndarray | None = None) -> Neighbours:
        """The k rows most like each query.

        Args:
            queries: texts (a str or several), or vectors [q, D] or [D].
            k: at most this many; fewer where there are fewer rows.
            among: bool [N], the rows that may be found; None means all.

        Raises:
            EmbedcacheError: vectors of another width or with NaN; texts, but the index came from bare vectors, or the
                encoder is missing or has changed since it made the vectors; ``among`` of another length.
        """
        Q = unit_length(self._query_vectors(queries), self._rows.mean)
        if among is not None:
            among = np.asarray(among, dtype=bool)
            if among.shape != (self.rows,):
                raise EmbedcacheError(f"among is {list(among.shape)}, not one bool for each of {self.rows} rows")
            if among.all():
                among = None
        k = min(k, self.rows if among is None else int(np.count_nonzero(among)))
        if k < 1 or not len(Q):
            k = max(k, 0)
            return Neighbours(np.empty((len(Q), k), dtype=np.int64), np.empty((len(Q), k), dtype=np.float32))
        _, found = self._engine.search(Q, k, among)
        scores, places = top(scores_of(self._rows, Q, found), k)  # equal to the last bit, alone or among others
        return Neighbours(np.take_along_axis(found, places, axis=1), np.clip(scores, -1, 1))

    def vectors(self, rows: Any) -> np.ndarray:
        """float32 [n, D]: rows as the index sees them, at unit length, centred if it is."""
        return self._rows.unit(np.asarray(rows, dtype=np.int64))

    def prepare(self) -> None:
        """Do now what the first searches would have to wait for. Worth it in a server."""
        self._engine.prepare()

    def use(self, encoder: Encoder) -> None:
        """Encode query texts with this encoder from now on."""
        self._loaded = encoder

    def save(self, place: str | Path | Output) -> int:
        """Write the index file; returns its bytes. Vectors of a cache stay there; bare vectors are written too.

        Raises:
            EmbedcacheError: it cannot be written there.
        """
        about = self.about
        path = Path(place.target or place.name) if isinstance(place, Output) else Path(place)
        sections = dict(self._engine.sections()) if hasattr(self._engine, "sections") else {}
        if self._rows.mean is not None:
            sections["mean"] = file_format.put_array(self._rows.mean)
        if self._own_vectors:
            stored = self._rows.stored
            if stored.dtype not in (np.float16, np.float32):
                stored = np.asarray(stored, np.float32)
            sections["vectors_" + stored.dtype.name] = file_format.put_array(stored)
        if about.cache is not None:
            about = About(**{**vars(about), "cache": _relative(about.cache, path)})
        return file_format.write(place, about, sections)

    @classmethod
    def load(cls, path: str | Path, cache: Cache | None = None, *, device: str = "auto") -> SearchIndex:
        """Read what ``save`` wrote.

        Args:
            path: the index file.
            cache: where the vectors are; None opens the one that the index was made from.
            device: "auto", "cpu" or "cuda[:N]".

        Raises:
            EmbedcacheError: a file is missing, not an index or damaged, or the cache is another or has changed.
        """
        path = Path(path)
        try:
            about, sections = file_format.read(path)
            mean = file_format.take_array(sections["mean"], np.float32, about.dim) if about.center else None
            stored: Matrix | None = _own_vectors(about, sections)
            own = stored is not None
            if stored is None:
                if cache is None:
                    cache = open_cache(path.parent / str(about.cache))
                stored = vectors_of(cache, about, path)
            rows = StoredRows(stored, mean)
            return cls(about, rows, restored(about, rows, sections, device), own_vectors=own)
        except (SpoiltError, KeyError, TypeError, ValueError) as error:
            again = "build it again" if cache is None else make_again(cache, path)
            raise EmbedcacheError(f"{path} is not an index of this version, or is damaged ({error}): {again}") from None

    def _query_vectors(self, queries: Any) -> np.ndarray:
        if isinstance(queries, str):
            queries = [queries]
        if not hasattr(queries, "shape") and all(isinstance(query, str) for query in queries):
            return self._encode(list(queries))
        Q = np.atleast_2d(_as_array(queries))
        if Q.shape[1] != self.dim:
            raise EmbedcacheError(f"query vectors are {Q.shape[1]} wide, the index {self.dim}: use the same encoder")
        if not np.isfinite(Q).all():
            raise EmbedcacheError("query vectors hold NaN or infinity: leave those out")
        return Q

    def _encode(self, texts: list[str]) -> np.ndarray:
        if self._loaded is None:
            if self.encoder is None:
                raise EmbedcacheError(
                    "this index was made from vectors alone: search it by vectors, or build it from a cache"
                )
            from embedcache.encoder.load_again import encoder_of

            self._loaded = encoder_of(self.encoder, "the index", self.pooling)
        return self._loaded.encode_texts(texts, [(self.pooling, self.layer)])[0]


def _own_vectors(about: About, sections: dict[str, np.ndarray]) -> np.ndarray | None:
    for dtype in ("float16", "float32"):
        if "vectors_" + dtype in sections:
            return file_format.take_array(sections["vectors_" + dtype], dtype, about.rows, about.dim)
    return None


def _relative(cache: str, path: Path) -> str:
    try:
        return os.path.relpath(cache, path.absolute().parent)
    except ValueError:  # another drive
        return cache


def _as_array(X: Any) -> np.ndarray:
    if hasattr(X, "detach"):  # a torch tensor, perhaps on a GPU, perhaps bfloat16, which NumPy does not have
        X = X.detach().float().cpu().numpy()
    X = np.asarray(X)
    if X.ndim not in (1, 2) or X.dtype.kind not in "fiu" or X.shape[-1] == 0:
        raise EmbedcacheError(f"vectors must be numbers [n, D], not {X.dtype} {list(X.shape)}")
    return X


def stored_output(cache: Cache, pooling: str | None, layer: int | None) -> tuple[str, int]:
    """The vectors to search: the asked ones, preferably those of ``Cache.preferred``, preferably of the last layer."""
    fits = [(p, n) for p, n in cache.outputs if pooling in (None, p) and layer in (None, n)]
    best = cache.preferred(-1 if layer is None else layer)
    fits.sort(key=lambda output: (output[0] != best, output[1] != -1))
    return fits[0] if fits else (pooling or best, -1 if layer is None else layer)
