"""A drop-in for SentenceTransformer.encode that computes only texts that no process has given it before."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache.file import Cache
from embedcache.cache.fingerprint import fingerprint
from embedcache.cache.layout import STORES, Output
from embedcache.cache.strings import HASH_BYTES, hash_texts
from embedcache.common.texts import as_texts
from embedcache.encoder import identify
from embedcache.encoder.folder import find_folder, find_root, positions_of
from embedcache.encoder.hardware import resolve_device
from embedcache.encoder.poolings import MODEL
from embedcache.encoder.prescription import read_prescription, read_prompts
from embedcache.errors import EmbedcacheError
from embedcache.extraction.vectors import AskedVectors, choose
from embedcache.vector_store.store import VectorStore

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

TOGETHER = 2048  # new texts that are encoded, and then on the disk, at a time
SUFFIX = 16  # digits of the encoder's fingerprint in a file's name


def cached(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    store: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> CachedEncoder:
    """An encoder that keeps every vector that it makes, and makes none twice.

        encoder = ec.cached("sentence-transformers/all-MiniLM-L6-v2", "vectors")
        vectors = encoder.encode(texts)  # as SentenceTransformer(model).encode(texts), but for the time

    Args:
        model: the model's folder, or its name on the hub.
        path: the folder of the vectors, made where there is none. Several models can share it.
        dtype: what to compute in; "float32" gives what sentence-transformers gives, "bfloat16" and "int8" are faster.
        store: "float32" or "float16".
        device: "auto", "cpu", "cuda" or "cuda:N".
        trust_remote_code: whether Python code that comes with the model may run.

    Raises:
        EmbedcacheError: the model is not found, or the folder cannot be used.
    """
    return CachedEncoder(model, path, dtype=dtype, store=store, device=device, trust_remote_code=trust_remote_code)


class CachedEncoder:
    """What ``cached`` returns: several threads may use it, and several processes its folder.

    Attributes:
        path: the folder.
    """

    def __init__(
        self, model: str | os.PathLike[str], path: str | os.PathLike[str], *, dtype: str, store: str, device: str,
        trust_remote_code: bool,
    ) -> None:  # fmt: skip
        """See ``cached``."""
        self._model, self.path, self._store = os.fspath(model), Path(path), store
        if store not in ("float32", "float16"):
            raise EmbedcacheError(f"unknown store type {store!r}: use {' or '.join(sorted(STORES[:2]))}")
        if self.path.exists() and not self.path.is_dir():
            raise EmbedcacheError(f"{path} is a file: name a folder for the vectors")
        self._settings: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
        self._device = device
        self._prompted: dict[str | None, _Prompted] = {}
        self._lock = threading.RLock()  # around stores; never held while texts are encoded
        self._encoding = threading.Lock()  # one thread encodes; another that waits may find its texts done
        self._root = find_root(self._model, trust_remote_code)[0]
        self._with_prompt(None)

    def __repr__(self) -> str:
        return f"CachedEncoder({self._model!r}, {str(self.path)!r}, {len(self):,} texts)"

    def __len__(self) -> int:
        """How many texts are known without a prompt, or with the model's default one."""
        with self._lock:
            return self._with_prompt(None).refreshed().rows

    def __enter__(self) -> CachedEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def files(self) -> list[Path]:
        """The caches of what was encoded by this object so far: any command reads them, once ``merge`` has run."""
        return [one.store.path for one in self._prompted.values()]

    def get_sentence_embedding_dimension(self) -> int:
        """D."""
        return self._with_prompt(None).dim

    def encode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """Vectors of texts, as ``SentenceTransformer.encode`` returns them; only texts that are new are computed.

        A new text is on the disk when this returns, and most of them before, whatever happens to this process.

        Args:
            sentences: a text or several.
            prompt_name: the name of one of the model's prompts.
            prompt: a text to put before each text instead.
            batch_size: not needed: batches are made by tokens, and no vector depends on them.
            show_progress_bar: whether to show one on stderr.
            output_value: "sentence_embedding" alone.
            precision: "float32" alone.
            convert_to_numpy: an array; else a list of tensors.
            convert_to_tensor: one tensor instead.
            device: not another than that of ``cached``.
            normalize_embeddings: give them unit length.
            truncate_dim: the first dimensions alone.

        Returns:
            float32 [n, D]; of one text [D].

        Raises:
            EmbedcacheError: no such prompt, something other than texts, an option that needs the model itself.
        """
        self._check(output_value, precision, device)
        texts = as_texts(sentences)
        with self._lock:
            chosen = self._with_prompt(self._prompt(prompt_name, prompt))
        vectors = self._vectors(chosen, texts, bool(show_progress_bar))
        if truncate_dim is not None:
            vectors = np.ascontiguousarray(vectors[:, :truncate_dim])
        if normalize_embeddings:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        alone = isinstance(sentences, str)
        if convert_to_numpy and not convert_to_tensor:
            return vectors[0] if alone else vectors
        import torch

        tensor = torch.from_numpy(vectors)
        if alone:
            return tensor[0]
        return tensor if convert_to_tensor else list(tensor)

    def merge(self) -> None:
        """Bring what was appended into the caches, for other commands; it happens by itself when there is much."""
        with self._lock:
            for one in self._prompted.values():
                one.store.merge()

    def close(self) -> None:
        """Merge, and close the files."""
        self.merge()
        with self._lock:
            for one in self._prompted.values():
                one.store.close()

    def _vectors(self, chosen: _Prompted, texts: Sequence[str], show: bool) -> np.ndarray:
        """float32 [n, D]."""
        unique = list(dict.fromkeys(texts))
        hashes = hash_texts([text.encode() for text in unique]) if unique else np.empty((0, HASH_BYTES), np.uint8)
        found = np.empty((len(unique), chosen.dim), np.float32)
        with self._lock:
            known, found[known] = self._find(chosen, hashes)
        if not known.all():
            with self._encoding:
                with self._lock:  # another thread or process may have done some
                    known, found[known] = self._find(chosen, hashes)
                new = np.flatnonzero(~known)
                for start in range(0, len(new), TOGETHER):
                    part = new[start : start + TOGETHER]
                    some = [unique[i] for i in part]
                    (made,) = chosen.encoder.encode_texts(some, [chosen.output])
                    with self._lock:
                        chosen.store.append(hashes[part], some, made)
                        stored, vectors = chosen.store.find(hashes[part])
                        found[part] = made
                        found[part[stored]] = vectors  # as every later call gives them
                    if show:
                        _show(start + len(part), len(new))
        place = {text: i for i, text in enumerate(unique)}
        return found if len(unique) == len(texts) else found[[place[text] for text in texts]]

    def _find(self, chosen: _Prompted, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return chosen.refreshed().find(hashes)

    def _check(self, output_value: str | None, precision: str, device: str | None) -> None:
        if output_value != "sentence_embedding":
            raise EmbedcacheError(
                f"output_value {output_value!r}: only sentence_embedding is kept; extract --tokens keeps more"
            )
        if precision != "float32":
            raise EmbedcacheError(
                f"precision {precision!r}: quantize the result, with sentence_transformers.quantize_embeddings"
            )
        if device is not None and resolve_device(str(device)) != (own := resolve_device(self._device)):
            raise EmbedcacheError(f"device {device!r}: this encoder is on {own}: name it in ec.cached(..., device=...)")

    def _prompt(self, name: str | None, prompt: str | None) -> str | None:
        if prompt is not None or name is None:
            return prompt
        prompts, _ = read_prompts(self._root)
        if name not in prompts:
            known = f"it has {', '.join(prompts)}" if prompts else "it has none"
            raise EmbedcacheError(f"{self._model} has no prompt {name!r}; {known}")
        return prompts[name]

    def _with_prompt(self, prompt: str | None) -> _Prompted:
        if prompt not in self._prompted:
            self._prompted[prompt] = _Prompted(self._model, self._root, self.path, prompt, self._settings, self._store)
        return self._prompted[prompt]


class _Prompted:
    """One prompt's encoder, loaded when a text is new, and its store."""

    def __init__(
        self, model: str, root: Path, path: Path, prompt: str | None, settings: dict[str, Any], store: str
    ) -> None:
        trust = settings["trust_remote_code"]
        pooling = MODEL if read_prescription(root, model) is not None else "mean"
        asked = AskedVectors(pooling)
        if pooling != MODEL:  # as sentence-transformers reads a model that says nothing
            asked = AskedVectors(pooling, max_length=positions_of(find_folder(model, trust)[0]) or None)
        chosen = choose(model, asked, None, trust)
        self._model, self.output = model, (pooling, -1)
        self._settings = {**chosen.settings, **settings}
        if prompt is not None:
            self._settings["prompt"] = prompt
        self._loaded: Encoder | None = None
        identity, source = identify(model, **{key: value for key, value in self._settings.items() if key != MODEL})
        self._settings["dtype"] = identity["compute_dtype"]
        about = self._settings[MODEL]
        encoder = {"source": source, "identity": identity, "store": store} | ({} if about is None else {MODEL: about})
        path.mkdir(parents=True, exist_ok=True)
        target = path / f"{fingerprint(encoder)[:SUFFIX]}.h5"
        self.dim = _known_width(target, self.output) or self.encoder.width(self.output)
        self.store = VectorStore(target, encoder, self.output, self.dim)

    @property
    def encoder(self) -> Encoder:
        if self._loaded is None:
            from embedcache.encoder import Encoder

            self._loaded = Encoder.load(self._model, **self._settings)
        return self._loaded

    def refreshed(self) -> VectorStore:
        self.store.refresh()
        return self.store


def _known_width(path: Path, output: Output) -> int | None:
    """What the cache says, so that the encoder is not loaded for it."""
    if not path.exists():
        return None
    with Cache(path) as cache:
        return cache.width(output) if output in cache.outputs else None


def _show(done: int, total: int) -> None:
    print(f"\rencoding {done:,} of {total:,} new texts", end="\n" if done == total else "", file=sys.stderr, flush=True)
