"""An index of vectors by cosine. Exact, with FAISS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.encoder.model import Encoder

CHUNK_ROWS = 8192  # rows that are converted to float32 at once
INDEX_FORMAT = {"format": "embedcache-index", "format_version": 1, "kind": "exact"}


@dataclass(frozen=True)
class Neighbours:
    """Of q queries: ``rows`` int64 [q, k] and ``scores`` float32 [q, k] (cosine, -1 to 1), best first."""

    rows: np.ndarray
    scores: np.ndarray


class SearchIndex:
    """All rows' vectors at unit length, searched exactly by inner product.

    A row that is zero or holds NaN or infinity has no direction: its score is 0 for every query.

    Attributes:
        rows: N. dim: D.
        encoder: the cache's description of its encoder, with which texts are encoded; None from bare vectors.
        pooling, layer: which of the encoder's vectors these are.
    """

    def __init__(
        self, index: Any, encoder: dict[str, Any] | None = None, pooling: str = "cls", layer: int = -1
    ) -> None:
        self._index = index
        self.encoder, self.pooling, self.layer = encoder, pooling, layer
        self._loaded: Encoder | None = None
        self.center = False

    @property
    def rows(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    @classmethod
    def build(
        cls, cache: Cache | str | Path, pooling: str = "cls", layer: int = -1, kind: str = "auto", center: bool = False
    ) -> SearchIndex:
        """Index a cache's vectors.

        Raises:
            EmbedcacheError: it cannot be opened, has no such vectors, is not complete or has no rows; no FAISS.
        """
        if not isinstance(cache, Cache):
            with open_cache(cache) as opened:
                return cls.build(opened, pooling, layer)
        if not cache.rows:
            raise EmbedcacheError(f"{cache.path} has no rows to search: extract some texts into it first")
        index = cls.from_vectors(cache.embeddings(pooling, layer))
        index.encoder, index.pooling, index.layer = cache.encoder, pooling, layer
        return index

    @classmethod
    def from_vectors(cls, X: Any) -> SearchIndex:
        """Index [N, D] vectors: a NumPy array (float16, memory-mapped, ...) or a torch tensor; copied as float32."""
        X = _as_array(X)
        index = _faiss().IndexFlatIP(X.shape[1])
        for start in range(0, len(X), CHUNK_ROWS):
            index.add(unit_length(X[start : start + CHUNK_ROWS]))
        return cls(index)

    def search(self, queries: Any, k: int = 10, *, among: np.ndarray | None = None) -> Neighbours:
        """The k rows most like each query.

        Args:
            queries: texts (a str or several), or vectors [q, D] or [D].
            k: at most this many; fewer where there are fewer rows.
            among: bool [N], the rows that may be found; None means all.

        Raises:
            EmbedcacheError: vectors of another width or with NaN; texts, but the index came from bare vectors, or the
                encoder cannot be had or is no longer the one that made the vectors.
        """
        Q = unit_length(self._query_vectors(queries))
        k = min(k, self.rows if among is None else int(np.count_nonzero(among)))
        if k < 1:
            return Neighbours(np.empty((len(Q), 0), dtype=np.int64), np.empty((len(Q), 0), dtype=np.float32))
        faiss, options = _faiss(), {}
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            options["params"] = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        scores, rows = self._index.search(Q, k, **options)
        return Neighbours(rows, np.clip(scores, -1, 1))

    def vector(self, row: int) -> np.ndarray:
        """Row ``row`` at unit length, float32 [D]."""
        return np.asarray(self._index.reconstruct(row))

    def use(self, encoder: Encoder) -> None:
        """Encode query texts with this encoder from now on."""
        self._loaded = encoder

    def save(self, path: str | Path) -> None:
        """Write the FAISS file ``path`` and beside it ``path``.json, which says what it holds."""
        path = Path(path)
        about = {**INDEX_FORMAT, "rows": self.rows, "dim": self.dim, "encoder": self.encoder}
        about |= {"pooling": self.pooling, "layer": self.layer}
        partial, described = (path.with_name(path.name + end) for end in (".tmp", ".json.tmp"))
        try:
            _faiss().write_index(self._index, str(partial))
            described.write_text(json.dumps(about, indent=2), encoding="utf-8")
            partial.replace(path)
            described.replace(_about(path))
        except (OSError, RuntimeError) as error:
            for leftover in (partial, described):
                leftover.unlink(missing_ok=True)
            raise EmbedcacheError(f"cannot write the index {path}: {error}: check the folder and the disk") from error

    @classmethod
    def load(cls, path: str | Path, cache: Cache | None = None) -> SearchIndex:
        """Read what ``save`` wrote.

        Raises:
            EmbedcacheError: a file is missing, is no such index, or the two do not belong together.
        """
        path, faiss = Path(path), _faiss()
        for file in (path, _about(path)):
            if not file.is_file():
                raise EmbedcacheError(f"{file}: no such file: an index is two files, {path.name} and {path.name}.json")
        try:
            about = json.loads(_about(path).read_text(encoding="utf-8"))
            index = faiss.read_index(str(path))
            right = about.items() >= INDEX_FORMAT.items() and isinstance(index, faiss.IndexFlat)
            if not right or (index.ntotal, index.d) != (about["rows"], about["dim"]):
                raise ValueError("not what its .json says")
            return cls(index, about["encoder"], about["pooling"], about["layer"])
        except (OSError, RuntimeError, ValueError, KeyError, AttributeError, MemoryError) as error:
            reason = " ".join(str(error).split())[:120]
            raise EmbedcacheError(
                f"{path} is no index of this version, or damaged ({reason}): build it again"
            ) from error

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
            self._loaded = load_encoder(self.encoder, "the index")
        return self._loaded.encode_texts(texts, [(self.pooling, self.layer)])[0]


def unit_length(X: np.ndarray) -> np.ndarray:
    """[n, D] to float32 rows of length 1; a row that has no direction (zero, NaN, infinite) becomes zero."""
    X = np.asarray(X, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", X, X))
        usable = np.isfinite(norms) & (norms > 0)
        scaled = X / np.where(usable, norms, 1)[:, None]
    return np.ascontiguousarray(np.where(usable[:, None], scaled, 0), dtype=np.float32)


def _as_array(X: Any) -> np.ndarray:
    if hasattr(X, "detach"):  # a torch tensor, perhaps on a GPU, perhaps bfloat16, which NumPy does not have
        X = X.detach().float().cpu().numpy()
    X = np.asarray(X)
    if X.ndim not in (1, 2) or X.dtype.kind not in "fiu" or X.shape[-1] == 0:
        raise EmbedcacheError(f"vectors must be numbers [n, D], not {X.dtype} {list(X.shape)}")
    return X


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise EmbedcacheError(
            "search needs FAISS, which is not installed: pip install 'embedcache[cpu]', or 'embedcache[gpu]' (not both)"
        ) from error
    return faiss


def _about(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def load_encoder(
    description: dict[str, Any], owner: str, device: str = "auto", trust_remote_code: bool = False
) -> Encoder:
    """The encoder that made the vectors, and no other."""
    from embedcache.encoder.model import load_again

    return load_again(
        description["source"], description["identity"], owner, device=device, trust_remote_code=trust_remote_code
    )


def default_path(p: str | Path) -> Path:
    return Path(p).with_suffix(".index")
