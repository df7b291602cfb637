"""The encoder itself: load, tokenize, encode. Frozen: eval mode, inference mode, no dropout, no gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedcache.encoder.batching import default_batch_tokens, plan_batches
from embedcache.encoder.folder import (
    check_max_length,
    find_folder,
    folder_identity,
    resolve_device,
    resolve_dtype,
)
from embedcache.encoder.plain import POOLINGS, Plain
from embedcache.encoder.runners import choose_runner, count_threads, weights_dtype
from embedcache.encoder.tokenizing import TextTokenizer, Tokens
from embedcache.errors import EmbedcacheError


class Encoder:
    """A frozen pretrained encoder. Make one with :meth:`load`.

    Attributes:
        identity: JSON-able dict of all that changes a vector, by content (see ``identify``).
        source: absolute folder or hub name, from which it can be loaded again.
        dim: D, the width of the vectors. layers: number of transformer layers.
        max_length: the most tokens of a row. device, compute_dtype: where and in what it computes.
        batch_tokens: padded tokens of one batch that suit the device.
        kernel: what computes the forward pass, "native", "packed" or "plain" (see ``runners``).
        invariant: whether a row's vectors are the same to the bit in any batch. threads: batches computed at once.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: dict[str, Any],
        source: str,
        device: str,
        kernel: str | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.identity, self.source, self.device = identity, source, device
        self.max_length: int = identity["max_length"]
        self.compute_dtype: str = identity["compute_dtype"]
        self.dim: int = model.config.hidden_size
        self.layers: int = model.config.num_hidden_layers
        self._tokenize = TextTokenizer(tokenizer, self.max_length)
        # The model's pad id, not the tokenizer's: RoBERTa and MPNet count positions by it.
        pad = model.config.pad_token_id if model.config.pad_token_id is not None else tokenizer.pad_token_id
        self._plain = Plain(model, int(pad or 0), device)
        self._runner, self._uncounted = choose_runner(
            model, self._plain, self.max_length, device, kernel, self.compute_dtype
        )
        self.kernel, self.invariant = self._runner.kernel, self._runner.invariant
        self.threads = count_threads(self._runner, device)
        self.batch_tokens = default_batch_tokens("native" if self.kernel == "native" else device)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        max_length: int = 250,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        check: Callable[[dict[str, Any]], None] | None = None,
        kernel: str | None = None,
    ) -> Encoder:
        """Load from a local folder, or by a Hugging Face name through the usual cache; safetensors only.

        ``check`` hears the identity before any weights are loaded, and may raise. ``kernel`` None is the fastest one
        that can run the encoder; all give the same vectors but for rounding.

        Raises:
            EmbedcacheError: it cannot be had, is incomplete or damaged, is no encoder with a CLS token, needs its
                own code without ``trust_remote_code``, or has fewer positions than ``max_length``.
        """
        check_max_length(max_length)
        device = resolve_device(device)
        folder, name = find_folder(source, trust_remote_code)
        compute_dtype = resolve_dtype(dtype, device, folder)
        identity = folder_identity(folder, max_length, compute_dtype, trust_remote_code)
        if check is not None:
            check(identity)
        with quiet():
            model, tokenizer = _load(folder, name, weights_dtype(compute_dtype, device, kernel), trust_remote_code)
        _check_tokenizer(model, tokenizer, name)
        if (positions := _positions(model)) is not None and max_length > positions:
            raise EmbedcacheError(
                f"max_length {max_length} is more than the {positions} positions of {name}: "
                f"use --max-length {positions} or less"
            )
        return cls(model.to(device), tokenizer, identity, name, device, kernel)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, cut to max_length as the model's own tokenizer cuts (special tokens stay)."""
        return self._tokenize(texts)

    def encode(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Vectors of one batch, in one forward pass (halved and tried again where a GPU's memory does not suffice).

        Args:
            ids: n rows of token ids, as ``tokenize`` gives them; see ``plan_batches`` for which to put together.
            outputs: (pooling, layer) pairs. Pooling "cls" is the first token's vector, "mean" the mean over all the
                row's tokens, special ones included. Layer k is the output of layer k of 1..layers, 0 are the
                embeddings before it; negative counts from the end, -1 is the model's last_hidden_state.

        Returns:
            A float32 array [n, dim] per output. A row's vectors do not depend on the others of its batch, but for
            rounding where the encoder is not ``invariant``.

        Raises:
            EmbedcacheError: no such pooling or layer; a single row does not fit into the GPU's memory.
        """
        for pooling, layer in outputs:
            self.layer_number(layer)
            if pooling not in POOLINGS:
                raise EmbedcacheError(f"unknown pooling '{pooling}': use {' or '.join(POOLINGS)}")
        if len(ids) == 0:
            return [np.empty((0, self.dim), dtype=np.float32) for _ in outputs]
        try:
            return self._forward(ids, outputs)
        except torch.cuda.OutOfMemoryError as error:
            if len(ids) == 1:
                raise EmbedcacheError(
                    f"one row of {len(ids[0])} tokens does not fit into the memory of {self.device}: use a smaller "
                    "--max-length, --dtype bfloat16 or --device cpu"
                ) from error
        # Outside of the handler, which would keep the failed pass's tensors alive.
        torch.cuda.empty_cache()
        half = len(ids) // 2
        parts = self.encode(ids[:half], outputs), self.encode(ids[half:], outputs)
        return [np.concatenate(pair) for pair in zip(*parts, strict=True)]

    def encode_texts(self, texts: Sequence[str], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Vectors of any number of texts, in their order: tokenize, plan batches, encode each."""
        return self.encode_tokens(self.tokenize(texts), outputs)

    def encode_tokens(
        self,
        tokens: Tokens,
        outputs: Sequence[tuple[str, int]],
        *,
        batch_tokens: int | None = None,
        tell: Callable[[np.ndarray], None] | None = None,
    ) -> list[np.ndarray]:
        """Vectors of tokenized texts, in their order, float32 [n, dim] per output.

        ``tell`` hears each batch's rows, in this thread. ``threads`` batches are computed at once.
        """
        vectors = [np.empty((len(tokens.ids), self.dim), dtype=np.float32) for _ in outputs]
        batches = plan_batches(tokens.lengths, batch_tokens or self.batch_tokens)

        def work(batch: np.ndarray) -> list[np.ndarray]:
            return self.encode([tokens.ids[i] for i in batch], outputs)

        with _mapper(self.threads) as map_batches:
            for batch, parts in zip(batches, map_batches(work, batches), strict=True):
                for whole, part in zip(vectors, parts, strict=True):
                    whole[batch] = part
                if tell is not None:
                    tell(batch)
        return vectors

    def _forward(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        resolved = [(pooling, self.layer_number(layer)) for pooling, layer in outputs]
        odd = [] if self._uncounted is None else [i for i, row in enumerate(ids) if self._uncounted in row]
        if not odd:
            return self._runner.run(ids, resolved)
        # A text with a literal "<pad>": one by one, so that such a row does not depend on its batch either.
        alone = [self._plain.run([ids[i]], resolved) for i in odd]
        rest = sorted(set(range(len(ids))) - set(odd))
        parts = [self._runner.run([ids[i] for i in rest], resolved)] if rest else []
        back = np.argsort(rest + odd)
        return [np.concatenate(pieces)[back] for pieces in zip(*parts, *alone, strict=True)]

    def pad(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(input_ids, attention_mask) of rows of token ids: int64 [n, longest] on the encoder's device."""
        return self._plain.pad(ids)

    def layer_number(self, layer: int) -> int:
        """The layer counted from the embeddings, 0, to the last, ``layers``. Raises EmbedcacheError for no such one."""
        if not -self.layers - 1 <= layer <= self.layers:
            raise EmbedcacheError(f"no layer {layer}: {self.source} has {self.layers}, and -1 is the last")
        return layer if layer >= 0 else self.layers + 1 + layer


def _load(folder: Path, name: str, weights: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """(model, tokenizer) from a complete folder; refuses what has no CLS vector before it loads any weights."""
    import transformers
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    # Its own code may live in another repository, which only then may be fetched.
    options = {"trust_remote_code": trust_remote_code, "local_files_only": not trust_remote_code}
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    dtype_option = {"dtype" if version >= (4, 56) else "torch_dtype": getattr(torch, weights)}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        _check_architecture(config, name)
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **options)
        model, report = AutoModel.from_pretrained(
            folder, config=config, use_safetensors=True, output_loading_info=True, **dtype_option, **options
        )
    except EmbedcacheError:
        raise
    except Exception as error:  # what a broken folder makes transformers raise is anything
        reason = " ".join(str(error).split())[:200]
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise EmbedcacheError(
                f"{name} needs Python code of its own: read it, and if you trust it pass --trust-remote-code"
            ) from error
        raise EmbedcacheError(
            f"{name} cannot be loaded ({type(error).__name__}: {reason}): check or copy the model again"
        ) from error
    # The pooler is not used; any other weight that is not in the file would be a random one.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise EmbedcacheError(
            f"{name}: the weights lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
            + ", which "
            f"a {config.model_type} model has: config.json and weights do not belong together; copy the model again"
        )
    return model.eval().requires_grad_(False), tokenizer


def _check_architecture(config: Any, name: str) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder or causal or getattr(config, "is_decoder", False):
        what = "an encoder-decoder" if config.is_encoder_decoder else "a decoder"
        raise EmbedcacheError(
            f"{name} ({kind}) is {what}, without a first token that has seen the whole text: use an encoder such as "
            "BERT, RoBERTa, MPNet or MiniLM"
        )
    if not all(isinstance(getattr(config, key, None), int) for key in ("hidden_size", "num_hidden_layers")):
        raise EmbedcacheError(f"{name} ({kind}) is not a plain text encoder: use one such as BERT, RoBERTa or MPNet")


def _check_tokenizer(model: Any, tokenizer: Any, name: str) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise EmbedcacheError(f"{name}: its tokenizer has no fast version: add a tokenizer.json to the folder")
    try:
        special = tokenizer.backend_tokenizer.encode("a").special_tokens_mask
    except BaseException as error:  # the panic of a Rust library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise EmbedcacheError(f"{name}: its tokenizer is broken ({error}): copy tokenizer.json again") from error
    if not special or not special[0]:
        raise EmbedcacheError(f"{name}: its tokenizer puts no CLS token before the text: use an encoder such as BERT")
    known = model.get_input_embeddings().num_embeddings
    if max(tokenizer.get_vocab().values(), default=0) >= known:
        raise EmbedcacheError(
            f"{name}: the tokenizer has ids up to {max(tokenizer.get_vocab().values())}, the weights only {known} "
            "embeddings: they do not belong together; copy the model again"
        )


def _positions(model: Any) -> int | None:
    """How many tokens a row may have, or None where there is no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa's and MPNet's tables count from behind the pad id.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return getattr(model.config, "max_position_embeddings", None)


@contextmanager
def _mapper(threads: int) -> Iterator[Callable[..., Any]]:
    """A ``map`` over that many threads, results in order; what has not begun is dropped on an error or Ctrl-C."""
    if threads == 1:
        yield map
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars, reports and advice off the screen while a model loads; then all as it was."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_again(
    source: str, identity: dict[str, Any], owner: str, *, device: str = "auto", trust_remote_code: bool = False
) -> Encoder:
    """The encoder that once had ``identity``, for more vectors that are comparable with those of ``owner``.

    Raises:
        EmbedcacheError: it cannot be had, or what is at ``source`` now is another encoder.
    """
    settings: dict[str, Any] = {"max_length": identity["max_length"], "dtype": identity["compute_dtype"]}
    settings |= {"device": device, "trust_remote_code": trust_remote_code}
    if "code" in identity and not trust_remote_code:
        raise EmbedcacheError(
            f"the encoder of {owner} has Python code of its own: if you trust it, --trust-remote-code"
        )

    def check(now: dict[str, Any]) -> None:
        if differs := _differences(identity, now):
            raise EmbedcacheError(
                f"the encoder at {source} is not the one that made {owner}: its {' and '.join(differs)} changed; "
                "put the old one back, or run extract again with this one"
            )

    return Encoder.load(source, **settings, check=check)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two identities disagree on, by file where there are files."""
    names = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            names += [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
        elif was != now:
            names.append(key)
    return names
