"""What test_encoder_sanitizers.py runs under a sanitizer: ``sanitized_tokenizer.py LIBRARY``.

Without the tokenizers library, which is not built with one: the same tokens from any thread, in any company.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from embedcache.encoder import tokenizer_native

PIECES = [
    *map(chr, range(0x250)),
    " ",
    " ",
    "'s",
    "日",
    "각",
    "\u0301",
    "≠",
    "\U0001f600",
    "\u0378",
    "great",
    "film",
    "[MASK]",
]
WORDS = "[UNK] [CLS] [SEP] great film gr ##eat ##il ##m a ##b e i".split()


def spelling() -> list[str]:
    """How byte-level vocabularies spell the 256 bytes."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    return [*map(chr, visible), *(chr(256 + i) for i in range(len(hidden)))]


def kinds():
    common = {"added": ["[MASK]"], "continuing": ["##"]}
    for lower in (0, 1):
        flags = {"strip_accents": lower, "lowercase": lower, "ideographs": lower, "max_chars": 9, "unknown": 0}
        vocabulary = {word: i for i, word in enumerate(WORDS + [chr(i) for i in range(33, 600)])}
        yield {**common, **flags, "kind": tokenizer_native.WORDPIECE, "vocabulary": vocabulary}
        words = [*spelling(), "gr", "ea", "eat", "great", "Ġgreat", "il", "Ã©"]
        merges = ["g r", "e a", "ea t", "gr eat", "Ġ great", "i l", "Ã ©"]
        flags = {"prefix_space": lower, "ignore_merges": lower, "nfc": lower}
        vocabulary = {word: i for i, word in enumerate(words)}
        yield {**common, **flags, "kind": tokenizer_native.BYTE_LEVEL, "vocabulary": vocabulary, "merges": merges}


def main() -> None:
    tokenizer_native._PATH = sys.argv[1]
    tokenizer_native.cpu_threads, tokenizer_native.THREAD_BYTES = (lambda: 3), 50
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(PIECES, int(n))) for n in rng.integers(0, 90, 150)] + ["", "great" * 300, "\U0001f600"]
    for settings in kinds():
        for left in (False, True):
            native = tokenizer_native.NativeTokenizer(settings, [1], [2], 12, left)
            alone = [native.encode([text]) for text in texts]
            with ThreadPoolExecutor(3) as pool:
                for rows, lengths in pool.map(native.encode, [texts] * 6):
                    assert rows.lists() == [one.lists()[0] for one, _ in alone]
                    assert lengths.tolist() == [int(one[0]) for _, one in alone]
            assert (lengths > 12).any() and (lengths < 0).any() and (lengths > 0).any()


main()
print("clean")
