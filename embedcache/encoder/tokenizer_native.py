"""The native tokenizer: ctypes binding of csrc/tokenizer/tokenizer.h, and which tokenizers it understands.

It makes the same tokens as Hugging Face's ``tokenizers``, which remains the reference. That library handles every
pipeline with a part that is not known here, and every text that contains an added token, or a character on which
versions of Unicode differ.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np

from embedcache.common.native_library import find_library, open_library
from embedcache.encoder.at_once import cpu_threads
from embedcache.encoder.token_rows import TokenRows, row_offsets
from embedcache.errors import EmbedcacheError

ABI_VERSION, SLACK = 1, 32
WORDPIECE, BYTE_LEVEL = 0, 1
THREAD_BYTES = 1 << 15  # of text per thread; less is not worth a thread
_PATH = find_library(__file__, "_tokenizer_cpu")

# Texts on which a native tokenizer must agree with the library before it is used.
HARD_TEXTS = (
    "", " ", "a", "A great film, isn't it? They'll say: we've seen 12 of 3.5 — it's GREAT!!", "a'S 'll  're'd ''t",
    "  two  spaces\t\ttabs\r\n\r\nlines \u00a0\u3000\u2028 ", "e\u0301 \u0344 \u1ebf ﬁ ½ Ⅷ ² ≠ ÉCOLE İstanbul ΣΑΣ",
    "日本語の映画 and 한국어 영화, मराठी, مراجعة, ไทย, עִבְרִית", "x" * 101,
    "x" * 100 + " " + "ab" * 60, "#@$%^&*~`|\\<>{}",
    "👩‍👩‍👧 🤦🏽 ❤️ \ufeffBOM \u200bzero\x00nul\ufffd\x7f",
)  # fmt: skip


class _Strings(Structure):
    _fields_ = [("bytes", c_char_p), ("offsets", c_void_p), ("n", c_int64)]


class _Spec(Structure):
    _fields_ = [
        ("kind", c_int32),
        *((name, c_int32) for name in ("strip_accents", "lowercase", "ideographs", "max_chars", "unknown")),
        *((name, c_int32) for name in ("prefix_space", "ignore_merges", "nfc")),
        ("vocabulary", _Strings),
        ("ids", c_void_p),
        *((name, _Strings) for name in ("continuing", "merges", "added")),
        *((name, c_void_p) for name in ("before", "after")),
        *((name, c_int64) for name in ("n_before", "n_after", "max_length")),
        ("left", c_int32),
    ]


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled library, or None where it is missing or of another version."""
    library, _ = open_library(_PATH, "ec_tokenizer_abi_version", ABI_VERSION)
    if library is None:
        return None
    library.ec_tokenizer_last_error.restype = c_char_p
    library.ec_tokenizer_create.restype = c_void_p
    library.ec_tokenizer_create.argtypes = [POINTER(_Spec)]
    library.ec_tokenizer_destroy.argtypes = [c_void_p]
    library.ec_tokenizer_run.argtypes = [c_void_p, POINTER(_Strings), c_int32, c_void_p, c_void_p, c_void_p]
    return library


def is_built() -> bool:
    """Whether this installation has the native tokenizer."""
    return _library() is not None


class NativeTokenizer:
    """Texts to token ids. ``encode`` may be called from several threads at once; it releases the GIL."""

    def __init__(
        self, settings: dict[str, Any], before: Sequence[int], after: Sequence[int], max_length: int, left: bool
    ) -> None:
        """Build the tokenizer's tables.

        Args:
            settings: as ``understand`` returns them.
            before: special tokens to put before each text.
            after: special tokens to put after each text.
            max_length: the most tokens of a text, special tokens included.
            left: whether a long text loses its start, not its end.

        Raises:
            EmbedcacheError: the library is not built, or refuses these settings.
        """
        library, self._handle = _library(), None
        if library is None:
            raise EmbedcacheError("the native tokenizer is not built: reinstall embedcache with a C++ compiler")
        self._library, self._special = library, len(before) + len(after)
        numbers = {name: value for name, value in settings.items() if isinstance(value, int)}
        strings = {name: _strings(settings.get(name, ())) for name in ("vocabulary", "continuing", "merges", "added")}
        arrays = [np.array(one, np.int32) for one in (list(settings["vocabulary"].values()), before, after)]
        spec = _Spec(
            **numbers,
            **{name: one for name, (one, _) in strings.items()},
            **{name: one.ctypes.data for name, one in zip(("ids", "before", "after"), arrays, strict=True)},
            n_before=len(before),
            n_after=len(after),
            max_length=max_length,
            left=left,
        )
        self._handle = library.ec_tokenizer_create(spec)
        if not self._handle:
            raise EmbedcacheError(f"the native tokenizer cannot be created: {self._last_error()}")

    def encode(self, texts: Sequence[str]) -> tuple[TokenRows, np.ndarray]:
        """Tokenize texts.

        Returns:
            (ids of each text, special ones included, truncated to max_length; int64 [n], the number before
            truncation). A text that must be left to the library has an empty row and the number -1.

        Raises:
            UnicodeEncodeError, AttributeError: a text is not a valid string.
        """
        strings, offsets = _strings(texts)
        n, size = len(texts), int(offsets[-1])
        ids = np.empty(size + n * (self._special + 1), np.int32)
        rows, lengths = np.empty(n + 1, np.int64), np.empty(n, np.int64)
        threads = max(1, min(cpu_threads(), size // THREAD_BYTES))
        addresses = (array.ctypes.data for array in (ids, rows, lengths))
        if self._library.ec_tokenizer_run(self._handle, strings, threads, *addresses):
            raise EmbedcacheError(f"the native tokenizer failed: {self._last_error()}")
        return TokenRows(ids[: rows[-1]].copy(), rows), lengths

    def _last_error(self) -> str:
        return str(self._library.ec_tokenizer_last_error().decode(errors="replace"))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.ec_tokenizer_destroy(self._handle)
            self._handle = None


def _strings(texts: Any) -> tuple[_Strings, np.ndarray]:
    """(strings in one buffer, padded with bytes that may be read; int64 [n + 1], where each begins)."""
    encoded = [text.encode() for text in texts]
    offsets = row_offsets(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    encoded.append(bytes(SLACK))
    strings = _Strings(b"".join(encoded), offsets.ctypes.data, len(encoded) - 1)
    return strings, offsets  # the caller must keep the offsets alive as long as the strings


def native_tokenizer(backend: Any, max_length: int, left: bool, prefix: int, suffix: int) -> NativeTokenizer:
    """The native tokenizer that makes the same tokens as a tokenizers.Tokenizer.

    Args:
        backend: the tokenizer, without truncation and padding.
        max_length: the most tokens of a text.
        left: whether a long text loses its start, not its end.
        prefix: the number of special tokens before a text.
        suffix: the number of special tokens after a text.

    Raises:
        EmbedcacheError: the tokens might differ; the message says why, in a few words.
    """
    if not is_built():
        raise EmbedcacheError("the native one is not built")
    if prefix + suffix >= max_length:
        raise EmbedcacheError(f"no room for a token in {max_length}")
    pipeline = json.loads(backend.to_str())
    try:
        settings, around = understand(pipeline), backend.encode("").ids
    except (KeyError, TypeError):
        settings, around = None, []
    if settings is None or len(around) != prefix + suffix:
        raise EmbedcacheError(f"no native code for {_parts(pipeline)}")
    try:
        native = NativeTokenizer(settings, around[:prefix], around[prefix:], max_length, left)
    except UnicodeEncodeError:
        raise EmbedcacheError("its vocabulary is not valid Unicode") from None
    if not _agree(native, backend, max_length, left, prefix, suffix):
        raise EmbedcacheError("the native one makes other tokens for some test texts")
    return native


def _parts(pipeline: dict[str, Any]) -> str:
    """The types of a pipeline's parts, such as "Precompiled, Metaspace, Unigram"."""
    parts = (pipeline.get(name) for name in ("normalizer", "pre_tokenizer", "model", "post_processor"))
    return ", ".join(str(part["type"]) for part in parts if isinstance(part, dict) and part.get("type"))


def _agree(native: NativeTokenizer, backend: Any, most: int, left: bool, prefix: int, suffix: int) -> bool:
    """Whether both make the same tokens for ``HARD_TEXTS``, as far as the native one handles them."""
    found, lengths = native.encode(HARD_TEXTS)
    for text, row, length in zip(HARD_TEXTS, found, lengths.tolist(), strict=True):
        ids = backend.encode(text).ids
        body, kept = ids[prefix : len(ids) - suffix], most - prefix - suffix
        cut = ids[:prefix] + (body[-kept:] if left else body[:kept]) + ids[len(ids) - suffix :]
        if length >= 0 and (row, length) != (cut, len(ids)):
            return False
    return True


def understand(pipeline: dict[str, Any]) -> dict[str, Any] | None:
    """The settings for ``NativeTokenizer`` from a tokenizer.json; None where a part of it is not known here."""
    model, added = pipeline["model"], pipeline["added_tokens"]
    settings = _wordpiece(pipeline) if model["type"] == "WordPiece" else _byte_level(pipeline)
    if settings is None or not _only_adds(pipeline["post_processor"]):
        return None
    normalized = [token["content"] for token in added if token["normalized"]]
    # They are searched for in the normalized text. Byte-level BPE's normalizer, none or NFC, leaves ASCII unchanged.
    if normalized and not (model["type"] == "BPE" and all(content.isascii() for content in normalized)):
        return None
    return {**settings, "vocabulary": model["vocab"], "added": [token["content"] for token in added]}


def _wordpiece(pipeline: dict[str, Any]) -> dict[str, Any] | None:
    normalizer, model = pipeline["normalizer"] or {}, pipeline["model"]
    if normalizer.get("type") != "BertNormalizer" or pipeline["pre_tokenizer"] != {"type": "BertPreTokenizer"}:
        return None
    if normalizer["clean_text"] is not True or model["unk_token"] not in model["vocab"]:
        return None
    strip, lower = normalizer["strip_accents"], normalizer["lowercase"]
    return {
        "kind": WORDPIECE,
        "strip_accents": lower if strip is None else strip,
        "lowercase": lower,
        "ideographs": normalizer["handle_chinese_chars"],
        "max_chars": min(model["max_input_chars_per_word"], 1 << 30),
        "unknown": model["vocab"][model["unk_token"]],
        "continuing": [model["continuing_subword_prefix"]],
    }


def _byte_level(pipeline: dict[str, Any]) -> dict[str, Any] | None:
    normalizer, splitter, model = pipeline["normalizer"], pipeline["pre_tokenizer"] or {}, pipeline["model"]
    if model["type"] != "BPE" or normalizer not in (None, {"type": "NFC"}):
        return None
    if splitter.get("type") != "ByteLevel" or splitter.get("use_regex", True) is not True:
        return None
    if any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        return None
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    return {
        "kind": BYTE_LEVEL,
        "prefix_space": splitter["add_prefix_space"],
        "ignore_merges": bool(model.get("ignore_merges")),
        "nfc": normalizer is not None,
        "merges": merges,
    }


def _only_adds(processor: dict[str, Any] | None) -> bool:
    """Whether a post-processor does nothing to a single text except put special tokens around it."""
    if processor is None or processor["type"] in ("BertProcessing", "RobertaProcessing", "ByteLevel"):
        return True
    if processor["type"] == "Sequence":
        return all(map(_only_adds, processor["processors"]))
    kinds = [next(iter(part)) for part in processor["single"]] if processor["type"] == "TemplateProcessing" else []
    return kinds.count("Sequence") == 1
