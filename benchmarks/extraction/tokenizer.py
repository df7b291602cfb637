"""How fast do texts become token ids? The native tokenizer beside the ``tokenizers`` library, on one core each.

    python -m benchmarks.extraction.tokenizer [--turns 5] [--mixed MB] [--json PATH]

Both read the same str and are asked for what the encoder needs: the library for lists of ids (``encode_batch_fast``,
then ``ids``), the native one for one array. They take turns; the clock is the processor's time of this process, so that
other processes count little. WordPiece is MiniLM's; the byte-level BPE of 30,000 tokens is trained on the texts here.

``--mixed MB``: so many megabytes in many scripts (the reviews, this machine's manual pages in 20 languages,
documentation and programs, random characters) through both, each token compared; texts that are left do not count.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import statistics
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from benchmarks.extraction import data
from benchmarks.machine import machine
from embedcache.encoder import tokenizer_native
from embedcache.encoder.tokenizer_native import NativeTokenizer, native_tokenizer

LONG = 1 << 20
SCRIPTS = ((0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0x1E00, 0x2000),
           (0x2000, 0x2400), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0x1F300, 0x1FA00),
           (0x300, 0x370))  # fmt: skip


def byte_level(texts: list[str]) -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=30_000,
        special_tokens=["<s>", "<pad>", "</s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def native_of(backend: Any) -> tuple[NativeTokenizer, float]:
    """And the seconds that it takes to build."""
    begun = time.process_time()
    native = native_tokenizer(backend, LONG, False, 1, 1)
    return native, time.process_time() - begun


def compare(backend: Any, native: NativeTokenizer, texts: list[str]) -> dict[str, int]:
    """Tokens of all, texts whose tokens differ, texts that are left to the library, bytes of those that are not."""
    rows, lengths = native.encode(texts)
    there, ids = lengths >= 0, backend.encode_batch_fast(texts)
    differ = sum(here and row != one.ids for row, here, one in zip(rows.lists(), there.tolist(), ids, strict=True))
    size = sum(len(text.encode()) for text, here in zip(texts, there, strict=True) if here)
    return {"tokens": sum(map(len, ids)), "differ": differ, "left": int((~there).sum()), "bytes_compared": size}


def compare_mixed(backend: Any, native: NativeTokenizer, megabytes: float) -> dict[str, int]:
    """The same of texts in many scripts, until so much is compared."""
    found = {"texts": 0, "tokens": 0, "differ": 0, "left": 0, "bytes_compared": 0}
    for texts in mixed():
        for name, count in (compare(backend, native, texts) | {"texts": len(texts)}).items():
            found[name] += count
        if found["bytes_compared"] >= megabytes * 1e6:
            break
    return found


def speed(backend: Any, native: NativeTokenizer, texts: list[str], turns: int) -> dict[str, Any]:
    found = compare(backend, native, texts)
    works: dict[str, Callable[[], object]] = {
        "native": lambda: fresh.encode(texts),
        "library": lambda: [one.ids for one in backend.encode_batch_fast(texts)],
        "library, without lists": lambda: backend.encode_batch_fast(texts),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        fresh = native_of(backend)[0]  # without words in its cache
        for name, work in works.items():
            begun = time.process_time()
            work()
            rates[name].append(found["tokens"] / (time.process_time() - begun))
    ratios = [a / b for a, b in zip(rates["native"], rates["library"], strict=True)]
    medians = {name: round(statistics.median(some)) for name, some in rates.items()}
    return {
        "texts": len(texts), **found, "tokens_per_second": medians, "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(one, 2) for one in ratios],
    }  # fmt: skip


def files() -> Iterator[Path]:
    """Text in many languages that this machine has."""
    roots = [(Path("/usr/share/man"), "*.gz"), (Path("/usr/share/doc"), "*"), (Path(sys.prefix), "*.po")]
    roots += [(Path(sys.prefix), "*.py"), (Path(sys.prefix), "*.json"), (Path("/usr/share/i18n"), "*")]
    for root, pattern in roots:
        yield from (path for path in sorted(root.rglob(pattern)) if path.is_file() and path.stat().st_size < 1 << 20)


def mixed() -> Iterator[list[str]]:
    """Lists of texts, without end: most from files, the rest made of the reviews and of random characters."""
    rng = np.random.default_rng(0)
    reviews, paths = itertools.cycle(data.texts("short")), iter(files())
    scripts = [[c for c in range(*span) if unicodedata.category(chr(c)) != "Cn"] for span in SCRIPTS]
    while True:
        some = [next(reviews) for _ in range(200)]
        for path in itertools.islice(paths, 20):
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(errors="replace")
            some += [text[i : i + 3000] for i in range(0, len(text), 3000)]
        for _ in range(300):
            letters = np.concatenate([rng.choice(scripts[k], 40) for k in rng.integers(0, len(scripts), 4)])
            letters[rng.random(len(letters)) < 0.15] = 32
            some.append("".join(map(chr, rng.permutation(letters) if rng.random() < 0.5 else letters)))
        yield some


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--mixed", type=float, default=0, metavar="MB")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tokenizer_native.THREAD_BYTES = 1 << 62  # one thread
    texts = {kind: data.texts(kind) for kind in ("short", "long")}
    backends = {
        "wordpiece": Tokenizer.from_file(str(data.model_folder("minilm", Path()) / "tokenizer.json")),
        "byte-level": byte_level(texts["short"] + texts["long"]),
    }
    report: dict[str, Any] = {"machine": machine("tokenizers", "numpy"), "speed": {}, "mixed": {}, "build_seconds": {}}
    for name, backend in backends.items():
        backend.no_truncation()
        backend.no_padding()
        native, seconds = native_of(backend)
        report["build_seconds"][name] = round(seconds, 3)
        for kind, some in texts.items():
            report["speed"][f"{name}, {kind}"] = one = speed(backend, native, some, arguments.turns)
            print(f"{name}, {kind}: {one}", flush=True)
        if arguments.mixed:
            report["mixed"][name] = compare_mixed(backend, native, arguments.mixed)
            print(f"{name}, mixed: {report['mixed'][name]}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
