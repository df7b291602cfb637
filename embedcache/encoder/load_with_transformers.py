"""Load an encoder with transformers: model and tokenizer, and the fastest runner for them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedcache.common.docstrings import keep_docstrings
from embedcache.common.machine import cap_loaded_threads
from embedcache.encoder.adapter import merge_adapter, tokenizer_folder, without_adapter
from embedcache.encoder.adapter_files import task_adapter
from embedcache.encoder.apply_tuned import apply_tuned
from embedcache.encoder.model_parts import SUCH_AS, check_architecture, load_part
from embedcache.encoder.row_check import ROUNDING
from embedcache.encoder.runner import choose_runner, count_threads, weights_dtype
from embedcache.encoder.runner_plain import Plain
from embedcache.encoder.tokenizer import TextTokenizer
from embedcache.encoder.tokenizer_python import PythonTokenizer
from embedcache.encoder.tuned import Tuned
from embedcache.errors import EmbedcacheError, InputNote

keep_docstrings()
cap_loaded_threads()  # torch's


class Loaded:
    """A transformers model on its device.

    Attributes:
        model, tokenizer: of transformers.
        tokenize: texts to ``Tokens``.
        plain: the runner that transformers itself is.
        runner: the fastest runner (see ``runner``), which may be ``plain``.
        dim: D, the width of the last layer's vectors.
        layers: the number of layers.
        widths: of each layer's vectors, from the embeddings on.
        first: whether the tokenizer puts a token before the text.
        threads: the number of batches to compute at once.
        uncounted: the token id whose rows only ``plain`` can compute, see ``Blueprint``; or None.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokenize: TextTokenizer | PythonTokenizer,
        max_length: int,
        compute_dtype: str,
        device: str,
        kernel: str | None,
        kept: Sequence[str] = (),
    ) -> None:
        self.model, self.tokenizer, self.tokenize = model, tokenizer, tokenize
        self.layers: int = model.config.num_hidden_layers
        self.first = tokenize.first
        # The model's pad id, not the tokenizer's: some families count positions by it.
        pad = getattr(model.config, "pad_token_id", None)
        pad = tokenizer.pad_token_id if pad is None else pad
        pad = int(pad) if pad is not None and 0 <= pad < _embeddings(model) else 0  # -1 in some: there is none
        self.plain = Plain(model, pad, device)
        self.runner, self.uncounted = choose_runner(model, self.plain, max_length, device, kernel, compute_dtype, kept)
        self.widths = [model.config.hidden_size] * (self.layers + 1)
        if self.runner.kernel == "plain":
            self.widths = try_out(self, compute_dtype)
        self.dim: int = self.widths[-1]
        self.threads = count_threads(self.runner, device)


def load(
    folder: Path,
    name: str,
    *,
    max_length: int,
    compute_dtype: str,
    device: str,
    kernel: str | None,
    trust_remote_code: bool,
    lower_case: bool = False,
    task: str = "",
    tuned: Tuned | None = None,
    kept: Sequence[str] = (),
) -> Loaded:
    """Load the encoder in a complete folder.

    Args:
        folder: with the encoder's files.
        name: of the model, for messages.
        max_length: the most tokens of a text.
        compute_dtype: the dtype to compute in.
        device: the device to compute on.
        kernel: the runner asked for, or None.
        trust_remote_code: whether Python code that comes with the model may run.
        lower_case: whether the tokenizer lowercases every text first.
        task: the subfolder of an adapter to merge, or "".
        tuned: what is laid over its weights.
        kept: with int8, the products that stay in bfloat16.

    Raises:
        EmbedcacheError: the model is damaged, does not return vectors of a text's tokens, needs its own code while
            ``trust_remote_code`` is off, or has fewer positions than ``max_length``.
    """
    with quiet():
        model, tokenizer = _load(folder, name, weights_dtype(compute_dtype, device, kernel), trust_remote_code)
        if task:
            model = merge_adapter(model, task_adapter(folder, task), name).eval().requires_grad_(False)
        model = apply_tuned(model, tuned, name).eval().requires_grad_(False)
    _check_tokenizer(model, tokenizer, name)
    if (positions := _positions(model)) is not None and max_length > positions:
        raise EmbedcacheError(
            f"max_length {max_length} is more than the {positions} positions of {name}: "
            f"use --max-length {positions} or less"
        )
    try:
        with quiet():
            tokenize = _tokenize(tokenizer, max_length, lower_case)
            return Loaded(model.to(device), tokenizer, tokenize, max_length, compute_dtype, device, kernel, kept)
    except UnlikeTransformersError as error:
        raise EmbedcacheError(f"{name} ({model.config.model_type}): {error}") from error


def dtype_option(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The argument of ``from_pretrained`` for the dtype of the weights, by its name in the installed transformers."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if version >= (4, 56) else "torch_dtype": dtype}


def _load(folder: Path, name: str, weights: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """(model, tokenizer) from a complete folder. A model that is not a text encoder is refused before weights load."""
    from transformers import AutoConfig, AutoTokenizer

    # The model's own code may be in another repository, which may be downloaded only if the user trusts it.
    options = {"trust_remote_code": trust_remote_code, "local_files_only": not trust_remote_code}
    try:
        with without_adapter(folder) as base:
            config = AutoConfig.from_pretrained(base, **options)
            check_architecture(config, name)
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(folder), use_fast=True, **options)
            model, lacks = load_part(config, base, dtype_option(getattr(torch, weights)) | options)
    except EmbedcacheError:
        raise
    except Exception as error:  # transformers raises anything for a broken folder
        reason = " ".join(str(error).split())[:200]
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise EmbedcacheError(
                f"{name} needs its own Python code: read it, and if you trust it, pass --trust-remote-code"
            ) from error
        raise EmbedcacheError(
            f"{name} cannot be loaded ({type(error).__name__}: {reason}): check or copy the model again"
        ) from error
    # The pooler is not used. Any other missing weight would have random values.
    missing = [key for key in lacks if "pooler" not in key]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise EmbedcacheError(
            f"{name}: the weights are incomplete for a {config.model_type} model, {missing[0]}{more} missing: "
            "config.json and weights do not belong together; copy the model again"
        )
    model = merge_adapter(model, folder, name)
    model.config.use_cache = False  # of keys and values, which only text generation needs
    return model.eval().requires_grad_(False), tokenizer


def _check_tokenizer(model: Any, tokenizer: Any, name: str) -> None:
    try:
        tokenizer("a")
    except BaseException as error:  # a Rust library's panic is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise EmbedcacheError(f"{name}: its tokenizer is broken ({error}): copy its files again") from error
    known = _embeddings(model)
    if max(tokenizer.get_vocab().values(), default=0) >= known:
        raise EmbedcacheError(
            f"{name}: the tokenizer has ids up to {max(tokenizer.get_vocab().values())}, the weights only {known} "
            "embeddings: they do not belong together; copy the model again"
        )


def _embeddings(model: Any) -> int:
    """The number of token ids that a model has embeddings for."""
    return int(model.get_input_embeddings().weight.shape[0])


class UnlikeTransformersError(Exception):
    """The runner's vectors of a text differ from those of transformers, or the model does not return any."""


@torch.inference_mode()
def try_out(loaded: Loaded, compute_dtype: str) -> list[int]:
    """Encode a short text as sentence-transformers does, and compare; return the width of each layer's vectors.

    sentence-transformers passes everything the tokenizer returns to the model, token types included, and uses its
    last_hidden_state; ``Plain`` passes ids and a mask only.

    Args:
        loaded: the model and its runners.
        compute_dtype: decides how much rounding alone may change.

    Raises:
        UnlikeTransformersError: the two results differ, or the model's code fails.
    """
    features = loaded.tokenizer(["a b"], return_tensors="pt").to(loaded.model.device)
    ids = loaded.tokenize(["a b"]).rows[0]
    takes = inspect.signature(loaded.model.forward).parameters
    known = {name: value for name, value in features.items() if name in takes}
    try:
        widths = loaded.plain.widths(ids)
        theirs = loaded.model(**known, return_dict=True).last_hidden_state[0].float().mean(0).cpu().numpy()
        (ours,) = loaded.plain.run([ids], [("mean", loaded.layers)])
    except Exception as error:  # an architecture's own code raises anything
        raise UnlikeTransformersError(
            "transformers' code for this architecture does not return vectors of a text's tokens: use an encoder such "
            f"as {SUCH_AS}"
        ) from error
    room = ROUNDING[compute_dtype] * float(np.abs(theirs).max())
    if features["input_ids"][0].tolist() != ids or not np.abs(ours[0] - theirs).max() <= room:
        raise UnlikeTransformersError(
            "its vectors of a test text differ from those that sentence-transformers makes with this tokenizer: use an "
            f"encoder such as {SUCH_AS}"
        )
    return widths


def _tokenize(tokenizer: Any, max_length: int, lower_case: bool) -> TextTokenizer | PythonTokenizer:
    if not tokenizer.is_fast:
        return PythonTokenizer(tokenizer, max_length, lower_case)
    if lower_case:
        _lower(tokenizer.backend_tokenizer)
    return TextTokenizer(tokenizer.backend_tokenizer, max_length, tokenizer.truncation_side, tokenizer.unk_token_id)


def _lower(backend: Any) -> None:
    from tokenizers.normalizers import Lowercase, Sequence

    own = backend.normalizer
    backend.normalizer = Sequence([Lowercase(), *([] if own is None else [own])])


def _positions(model: Any) -> int | None:
    """The most tokens per row; None where there is no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # Positions in a table with a padding id begin after it.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    positions = getattr(model.config, "max_position_embeddings", None)
    return positions if positions is None or positions > 0 else None  # XLNet's -1: there is no limit


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars, reports and advice while a model loads, then restore its settings."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", InputNote)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
