"""The encoder itself: tokenize, encode. It is frozen: eval mode, inference mode, no dropout, no gradients.

Nothing here imports torch or transformers unless the encoder needs them (see ``load_without_torch`` and
``load_with_transformers``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.outputs import Layer, parts_of
from embedcache.common.reading import Reading, most_unknown, read_of
from embedcache.encoder.after_pooling import Prescribed, load_prescribed
from embedcache.encoder.at_once import mapper
from embedcache.encoder.batching import count_alone, default_batch_tokens, plan_batches
from embedcache.encoder.chunking import in_chunks, mean_of_chunks, whole_texts
from embedcache.encoder.folder import (
    check_max_length,
    find_root,
    folder_identity,
    is_static,
    resolve_dtype,
    transformer_folder,
)
from embedcache.encoder.forward import Forward
from embedcache.encoder.hardware import resolve_device
from embedcache.encoder.kinds import looks_both_ways
from embedcache.encoder.load_without_torch import Direct, load_direct
from embedcache.encoder.poolings import MODEL, TOKEN_STATES, find_pooling
from embedcache.encoder.row_check import first_is_blind, sees_padding
from embedcache.encoder.runner_native import check_int8, may_be_native
from embedcache.encoder.static import Static, load_static, no_model
from embedcache.encoder.token_rows import scattered
from embedcache.encoder.token_vectors import KeepStates
from embedcache.encoder.tokenizer import Tokens
from embedcache.encoder.tuned import find_tuned
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.encoder.load_with_transformers import Loaded


class Encoder:
    """A frozen pretrained encoder. Make one with :meth:`load`.

    Attributes:
        identity: JSON-able dict of all that changes a vector, by content (see ``identify``).
        source: absolute folder or hub name, from which it can be loaded again.
        dim: D, the width of the vectors. layers: the number of transformer layers.
        prompt: put before every text. prescribed: makes the vectors called ``model``; None where none are asked for.
        max_length: the most tokens of a row, special tokens included.
        chunk: whether a longer text is read in chunks of max_length tokens; its vector is their mean.
        device, compute_dtype: where and in what it computes.
        batch_tokens: the default budget of a batch, in padded tokens.
        kernel: what computes the forward pass: "native", "packed", "plain" (see ``runner``) or "static".
        sees_padding: whether padding would change a row's vectors; then a batch holds rows of equal length only.
        no_cls: why there is no cls vector, for messages; "" where there is one.
        invariant: whether a row's vectors are the same to the bit in any batch. threads: batches computed at once.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        source: str,
        device: str,
        direct: Direct | Static | None,
        load: Callable[[], Loaded],
        prescribe: Callable[[int], Prescribed] | None = None,
    ) -> None:
        """``prescribe`` takes ``dim`` and returns what makes the vectors called ``model``."""
        self.identity, self.source, self.device = identity, source, device
        self.max_length: int = identity["max_length"]
        self.compute_dtype: str = identity["compute_dtype"]
        self.prompt: str = identity.get("prompt", "")
        self.chunk: bool = identity.get("chunk", False)
        self._direct, self._load, self._lock = direct, load, threading.Lock()
        self._loaded: Loaded | None = None
        parts: Direct | Static | Loaded = direct or self._all
        self.dim, self.layers, self._runner = parts.dim, parts.layers, parts.runner
        self._widths, self._tokenize = parts.widths, parts.tokenize
        self.kernel, self.invariant = self._runner.kernel, self._runner.invariant
        self.threads = parts.threads
        self.batch_tokens = self._runner.batch_tokens or default_batch_tokens(device)
        self.sees_padding = self.kernel == "plain" and sees_padding(
            self._runner.run, self._tokenize, self.layers, self.compute_dtype, source
        )
        self._forward = Forward(
            self._runner, lambda: self._all.plain, device, self._widths, parts.uncounted, self.sees_padding
        )
        self.no_cls = self._why_no_cls(parts.first)
        self.prescribed = None if prescribe is None else prescribe(self.dim)

    def _why_no_cls(self, first: bool) -> str:
        """``first``: whether the tokenizer puts a token before the text."""
        known, run = self._runner.causal, self._runner.run
        if known or (self.kernel == "plain" and first_is_blind(run, self._tokenize, self.layers)):
            if looks_both_ways(self.model.config.to_dict()):
                raise EmbedcacheError(
                    f"{self.source}: its config.json asks for bidirectional attention, which the installed version of "
                    "transformers does not support for this architecture: install a newer one"
                )
            return f"{self.source} is a causal model, whose first token does not see the text: use last or mean"
        return "" if first else f"the tokenizer of {self.source} puts no CLS token before a text: use mean or last"

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        max_length: int = 250,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        prompt: str = "",
        lower_case: bool = False,
        chunk: bool = False,
        task: str = "",
        kept: Sequence[str] = (),
        model: dict[str, Any] | None = None,
        check: Callable[[dict[str, Any]], None] | None = None,
        kernel: str | None = None,
        base: str | Path | None = None,
    ) -> Encoder:
        """Load from a local folder, or by Hugging Face name through the usual cache; safetensors only.

        Args:
            source: the folder or the name.
            max_length: the most tokens of a text, special tokens included.
            dtype: "float32", "bfloat16", "float16" or "int8" to compute in; "auto": what suits the device, never int8.
            device: "auto", "cpu", "cuda" or "cuda:N".
            trust_remote_code: whether Python code that comes with the model may run.
            prompt: put before every text.
            lower_case: whether every text is lowercased first.
            chunk: whether to read a longer text in chunks of max_length tokens (see ``chunking``), not only its start.
            task: the model's adapter of that name is merged into its weights; "": none (see ``task_adapter``).
            kept: with int8, the products that stay in bfloat16, such as "5 qkv" (layer and product, see ``int8``).
            model: how the vectors called ``model`` are made (``Prescription.about``); the folder must still agree.
                None: there are none.
            check: called with the identity before any weights are loaded; it may raise.
            kernel: "native", "packed" or "plain"; None chooses the fastest that can run the encoder. All return the
                same vectors up to rounding.
            base: where the base of a tuned run is now, if it has moved.

        Raises:
            EmbedcacheError: the model is not found, incomplete or damaged; it does not return vectors of a text's
                tokens; it needs its own code and ``trust_remote_code`` is off; it has fewer positions than
                ``max_length``; it cannot be computed in int8 here.
        """
        check_max_length(max_length)
        device = device if dtype == "int8" else resolve_device(device)
        tuned = find_tuned(source)
        root, name = find_root(source if base is None else base, trust_remote_code)
        name = name if tuned is None else str(tuned.path.parent)
        folder = transformer_folder(root)
        compute_dtype = resolve_dtype(dtype, device, folder)
        if compute_dtype == "int8":
            device = check_int8(folder, kernel)
        before: dict[str, Any] = {"prompt": prompt, "lower_case": lower_case, "chunk": chunk, "task": task}
        before |= {"tuned": tuned, "kept": kept}
        identity = folder_identity(folder, max_length, compute_dtype, trust_remote_code, **before)
        if check is not None:
            check(identity)

        def load() -> Loaded:
            from embedcache.encoder.load_with_transformers import load

            settings: dict[str, Any] = {"max_length": max_length, "compute_dtype": compute_dtype, "device": device}
            settings |= {"lower_case": lower_case, "task": task, "tuned": tuned, "kept": kept}
            return load(folder, name, kernel=kernel, trust_remote_code=trust_remote_code, **settings)

        prescribe = None if model is None else partial(load_prescribed, root, name, model)
        if is_static(folder):
            return cls(identity, name, "cpu", load_static(folder, name, max_length), partial(no_model, name), prescribe)
        native = may_be_native(compute_dtype, device, kernel) and not (trust_remote_code or lower_case or task)
        direct = load_direct(folder, max_length, compute_dtype, tuned, kept) if native else None
        return cls(identity, name, device, direct, load, prescribe)

    @property
    def _all(self) -> Loaded:
        """The encoder as transformers loads it, on first use."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self._all.model

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._all.tokenizer

    @property
    def tokenized_by(self) -> str:
        """Which code has tokenized most texts so far: see ``TextTokenizer.made_by``."""
        return self._tokenize.made_by

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, truncated to max_length as the model's own tokenizer does it (special tokens stay).

        The prompt is put before each text, and its tokens count. With ``chunk`` a longer text has several rows.
        """
        tokens = self._tokenize_starts(texts)
        if not self.chunk or not tokens.truncated.any():
            return tokens
        return in_chunks(texts, tokens, self.max_length, self._tokenize_starts, self._tokenize.offsets)

    def _tokenize_starts(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, what is too long cut off."""
        if self.prompt:
            texts = [self.prompt + text if isinstance(text, str) else text for text in texts]
        if self._direct is None:
            return self._tokenize(texts)
        odd = [i for i, text in enumerate(texts) if not self._direct.certain(text)]
        if not odd:
            return self._tokenize(texts)
        parts, truncated = [], np.zeros(len(texts), dtype=np.bool_)
        whole, unknown = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
        plain = sorted(set(range(len(texts))) - set(odd))
        for places, tokenize in ((odd, self._all.tokenize), (plain, self._tokenize)):
            tokens = tokenize([texts[i] for i in places])
            truncated[places], whole[places], unknown[places] = tokens.truncated, tokens.whole, tokens.unknown
            parts.append((np.array(places, np.int64), tokens.rows))
        return Tokens(scattered(len(texts), parts), truncated, whole, unknown)

    def reading(self, texts: Sequence[str], tokens: Tokens) -> Reading:
        """How much of these texts the encoder reads, given their tokens."""
        counts = tokens.counts
        some = (texts[i] for i in most_unknown(counts).tolist())
        return read_of(counts, int(tokens.truncated.sum()), self.max_length, texts=some, chunk=self.chunk)

    def encode(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Vectors of one batch, in one forward pass. A batch too large for a GPU's memory is halved and tried again.

        Args:
            ids: n rows of token ids, as ``tokenize`` returns them; ``plan_batches`` chooses which to put together.
            outputs: (pooling, layer) pairs. The poolings are those of ``poolings``; special tokens count as tokens.
                "model" is the vector that the model's authors prescribe, of the last layer; "tokens" is all tokens'
                vectors.
                Layer k in 1..layers is the output of that layer, 0 is the embeddings that enter the first; negative
                numbers count from the end, -1 is the model's last_hidden_state.

        Returns:
            A float32 array [n, width] per output; of "tokens" [t, width], one row's tokens after another. A row's
            vectors do not depend on the other rows of its batch, except for rounding where the encoder is not
            ``invariant``. A row without tokens is 0 in every pooling.

        Raises:
            EmbedcacheError: no such pooling or layer; a single row does not fit into the GPU's memory.
        """
        widths = list(map(self.width, outputs))
        if len(ids) == 0:
            return [np.empty((0, width), dtype=np.float32) for width in widths]
        parts = [self._pooled(output) for output in outputs]
        wanted = list(dict.fromkeys(part for some in parts for part in some))
        numbered = [(pooling, self.layer_number(layer)) for pooling, layer in wanted]
        found = dict(zip(wanted, self._forward(ids, numbered), strict=True))
        return [
            self.prescribed([found[part] for part in some]) if self.prescribed and output[0] == MODEL else found[output]
            for output, some in zip(outputs, parts, strict=True)
        ]

    def width(self, output: tuple[str, int]) -> int:
        """The width of the vectors of a (pooling, layer).

        Raises:
            EmbedcacheError: there is no such pooling or layer, or the model has no such vector.
        """
        pooling, layer = output
        number = self.layer_number(layer)
        if pooling != MODEL:
            if pooling != TOKEN_STATES:
                find_pooling(pooling)
            if self.kernel == "static" and pooling != "mean":
                raise EmbedcacheError(
                    f"no {pooling} vectors: {self.source} is a static model, which only has means: use --pooling mean"
                )
            if pooling == "cls" and self.no_cls:
                raise EmbedcacheError(f"no cls vectors: {self.no_cls}")
            return self._widths[number]
        if self.prescribed is None or number != self.layers:
            raise EmbedcacheError(
                f"no model vectors of layer {layer}: they exist for the last layer only"
                if self.prescribed
                else f"{self.source} was loaded without its model vectors; run extract with --pooling model to add them"
            )
        return self.prescribed.dim

    def _pooled(self, output: tuple[str, int]) -> list[tuple[str, int]]:
        """The (pooling, layer) pairs that the runner computes for an output."""
        if output[0] != MODEL or self.prescribed is None:
            return [output]
        return [(pooling, output[1]) for pooling in self.prescribed.pooling]

    def encode_texts(self, texts: Sequence[str], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Vectors of any number of texts, in input order: float32 [n, width] per output, see ``encode``."""
        return self.encode_tokens(self.tokenize(texts), outputs)

    def encode_tokens(
        self,
        tokens: Tokens,
        outputs: Sequence[tuple[str, Layer]],
        *,
        batch_tokens: int | None = None,
        tell: Callable[[np.ndarray], None] | None = None,
        states: KeepStates | None = None,
    ) -> list[np.ndarray]:
        """Vectors of tokenized texts, in input order. ``threads`` batches are computed at once.

        Args:
            tokens: of the texts.
            outputs: see ``encode``; several may stand side by side (common/outputs.py).
            batch_tokens: the budget of a batch, in padded tokens; None: what suits the device.
            tell: called in this thread with the indices (int64) of the texts that each batch has finished.
            states: who gets all tokens' vectors of a layer, batch after batch; not with ``chunk``.

        Returns:
            A float32 array [n, width] per output.
        """
        parts = [parts_of(*output) for output in outputs]
        if any(len(some) > 1 for some in parts):
            apart = [part for some in parts for part in some]
            found = iter(self.encode_tokens(tokens, apart, batch_tokens=batch_tokens, tell=tell, states=states))
            return [np.concatenate([next(found) for _ in some], axis=1) for some in parts]
        return self._encode_tokens(tokens, [some[0] for some in parts], batch_tokens, tell, states)

    def _encode_tokens(
        self,
        tokens: Tokens,
        outputs: Sequence[tuple[str, int]],
        batch_tokens: int | None,
        tell: Callable[[np.ndarray], None] | None,
        states: KeepStates | None,
    ) -> list[np.ndarray]:
        """The same of outputs that stand alone."""
        vectors = [np.empty((len(tokens.rows), self.width(output)), dtype=np.float32) for output in outputs]
        batches = plan_batches(tokens.rows.lengths, batch_tokens or self.batch_tokens)
        if tell is not None and tokens.chunks is not None:
            tell = whole_texts(tokens.chunks, tell)

        def work(batch: np.ndarray) -> list[np.ndarray]:
            rows = tokens.rows.take(batch)
            if states is None:
                return self.encode(rows, outputs)
            *found, values = self.encode(rows, [*outputs, (TOKEN_STATES, states.layer)])
            states.keep(batch, values, rows.offsets)
            return found

        by_torch = self.device == "cpu" and self.kernel in ("packed", "plain")
        alone = count_alone(batches, tokens.rows.lengths, self.threads) if by_torch else 0
        for some, threads in ((batches[:alone], 1), (batches[alone:], self.threads)):
            with mapper(threads, by_torch) as map_batches:
                for batch, parts in zip(some, map_batches(work, some), strict=True):
                    for whole, part in zip(vectors, parts, strict=True):
                        whole[batch] = part
                    if tell is not None:
                        tell(batch)
        if tokens.chunks is None:
            return vectors
        unit = self.prescribed is not None and self.prescribed.unit_length
        return [
            mean_of_chunks(one, tokens.chunks, tokens.rows.lengths, unit and output[0] == MODEL)
            for one, output in zip(vectors, outputs, strict=True)
        ]

    @property
    def pad_id(self) -> int:
        """The token id of padding."""
        return self._all.plain.pad_id

    def pad(self, ids: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """(input_ids, attention_mask) of rows of token ids: int64 tensors [n, longest] on the encoder's device."""
        return self._all.plain.pad(ids)

    def layer_number(self, layer: int) -> int:
        """Resolve a layer to its number from 0, the embeddings, to ``layers``, the last.

        Raises:
            EmbedcacheError: the model has no such layer.
        """
        if not -self.layers - 1 <= layer <= self.layers:
            raise EmbedcacheError(f"no layer {layer}: {self.source} has {self.layers}, and -1 is the last")
        return layer if layer >= 0 else self.layers + 1 + layer
