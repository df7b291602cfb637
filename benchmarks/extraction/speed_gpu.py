"""Extraction on a GPU, its parts apart: what the card computes, what reaches it, and what each part of the code brings.

    python -m benchmarks.extraction.speed_gpu [--shapes bert-base,minilm] [--rows 40000] [--peers none] [--budget 70]
        [--device cuda] [--json PATH]

From a bare checkout (bare.py: texts of this repository, random weights), in bfloat16, CLS vectors, max_length 250. For
each shape, in the order of value, until ``--budget`` seconds are over:

1. the worst cosine of 500 texts to plain transformers in float32;
2. the rate of matrix products at the model's own shapes, which all else is measured against;
3. tokenizing alone; tokens to vectors (GPU-only: ids in memory to vectors in memory); text to vectors, all in all;
4. with ``--peers all``: sentence-transformers, batches of 256, sorted by itself;
5. tokens to vectors in batches of 8,192 to 262,144 tokens, and with a part of the code left out: Triton's kernels,
   the second thread;
6. where the time of one batch goes (torch's profiler, to the log).

"of the rate" is useful FLOP (yardstick.py) over the best product's. What is reported is written after every part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.extraction import bare
from benchmarks.extraction.peers import MAX_LENGTH, plain, sentence_transformers
from benchmarks.extraction.yardstick import product_rate, read_shape, useful_flop
from benchmarks.machine import machine
from embedcache.encoder import Encoder

OUTPUTS = [("cls", -1)]
COMPARED = 500
BATCHES = (262144, 131072, 32768, 8192)


class Measured:
    """One shape's figures, each part with its seconds, as they come; a part that fails is noted."""

    def __init__(self, folder: Path, shape: str, texts: list[str], options: argparse.Namespace) -> None:
        self.folder, self.texts, self._options = folder, texts, options
        begun = time.perf_counter()
        self.encoder = Encoder.load(folder, max_length=MAX_LENGTH, dtype="bfloat16", device=options.device)
        self.runner: Any = self.encoder._runner
        self.tokens = self.encoder.tokenize(texts)
        self.flop = useful_flop(self.tokens.lengths, read_shape(folder))
        self.product = max(product_rate(read_shape(folder), options.device, "bfloat16").values())
        self.found: dict[str, Any] = {
            "shape": shape,
            "rows": len(texts),
            "tokens": int(self.tokens.lengths.sum()),
            "kernel": self.encoder.kernel,
            "parts": getattr(self.runner, "parts", {}),
            "tokenizer": self.encoder.tokenized_by,
            "batch_tokens": self.encoder.batch_tokens,
            "product_gflops": self.product,
            "load_seconds": time.perf_counter() - begun,
            "ways": {},
        }

    def parts(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "worst cosine", self._cosine
        yield "tokenizing", lambda: self._time("tokenizing", lambda: self.encoder.tokenize(self.texts), flop=False)
        yield "tokens to vectors", lambda: self._time("tokens to vectors", self._vectors)
        yield "text to vectors", lambda: self._time("text to vectors", self._text_to_vectors)
        if self._options.peers == "all":
            yield "peer", self._peer
        for size in BATCHES:
            yield (
                f"batches of {size}",
                lambda size=size: self._time(f"batches of {size:,}", lambda: self._vectors(size)),
            )
        for name, change in self._without().items():
            yield name, lambda name=name, change=change: self._changed(name, change)
        yield "profile", self._profile

    def _vectors(self, size: int | None = None) -> None:
        self.encoder.encode_tokens(self.tokens, OUTPUTS, batch_tokens=size)

    def _text_to_vectors(self) -> None:
        self.encoder.encode_texts(self.texts, OUTPUTS)

    def _time(self, name: str, work: Callable[[], Any], flop: bool = True) -> None:
        turns = []
        for _ in range(self._options.turns):
            begun = time.perf_counter()
            work()
            turns.append(time.perf_counter() - begun)
        seconds = statistics.median(turns)
        way = {"seconds_of_turns": turns, "tokens_per_second": self.found["tokens"] / seconds}
        if flop:
            way["useful_gflops"] = self.flop / seconds / 1e9
            way["of_product_rate"] = way["useful_gflops"] / self.product
        self.found["ways"][name] = way
        rate = f", {way['of_product_rate']:.0%} of the products' rate" if flop else ""
        print(f"  {name}: {seconds:.3f} s, {way['tokens_per_second']:,.0f} tokens/s{rate}", flush=True)

    def _cosine(self) -> None:
        some = self.texts[:: max(1, len(self.texts) // COMPARED)][:COMPARED]
        ours = self.encoder.encode_texts(some, [*OUTPUTS, ("mean", -1)])
        (run,) = plain(self.folder, self._options.device, "float32").values()
        theirs = run(some).astype(np.float64)
        x = ours[0].astype(np.float64)
        cosines = (x * theirs).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(theirs, axis=1)
        self.found["worst_cosine"] = float(cosines.min())
        assert np.isfinite(ours[1]).all()
        print(f"  worst cosine of {len(some)} texts to float32: {cosines.min():.7f}", flush=True)
        if cosines.min() < 0.999:
            raise SystemExit(f"{self.found['shape']}: the vectors are wrong (cosine {cosines.min():.4f})")

    def _without(self) -> dict[str, tuple[Any, str, Any]]:
        found: dict[str, tuple[Any, str, Any]] = {"one thread": (self.encoder, "threads", 1)}
        if getattr(self.runner, "_fused", None) is not None:
            found["without Triton"] = (self.runner, "_fused", None)
        return found

    def _changed(self, name: str, change: tuple[Any, str, Any]) -> None:
        owner, part, value = change
        before = getattr(owner, part)
        setattr(owner, part, value)
        try:
            self._time(name, self._vectors)
        finally:
            setattr(owner, part, before)

    def _profile(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if self._options.device == "cuda" else []
        size = self.encoder.batch_tokens
        order = np.argsort(self.tokens.lengths)[len(self.texts) // 2 :]
        some = order[: max(1, int(size // self.tokens.lengths[order[0]]))]
        ids = self.tokens.rows.take(some)
        self.encoder.encode(ids, OUTPUTS)
        with torch.profiler.profile(activities=kinds) as profiler:
            self.encoder.encode(ids, OUTPUTS)
        by = "self_cuda_time_total" if self._options.device == "cuda" else "self_cpu_time_total"
        print(f"  one batch, {int(ids.lengths.sum())} tokens:")
        print(profiler.key_averages().table(sort_by=by, row_limit=18, max_name_column_width=60), flush=True)

    def _peer(self) -> None:
        runs = sentence_transformers(self.folder, self._options.device, "bfloat16")
        name, run = list(runs.items())[-1]
        run(self.texts[:2000])
        self._time(f"sentence-transformers, {name}", lambda: run(self.texts))


@contextmanager
def noted(found: dict[str, Any], name: str) -> Iterator[None]:
    """One part's failure must not cost the others."""
    begun = time.perf_counter()
    try:
        yield
    except Exception as error:
        found.setdefault("failed", {})[name] = f"{type(error).__name__}: {error}"[:300]
        print(f"  {name} failed: {found['failed'][name]}", file=sys.stderr, flush=True)
    found.setdefault("seconds_of_parts", {})[name] = round(time.perf_counter() - begun, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shapes", default="bert-base,minilm", help=f"of {', '.join(bare.SHAPES)}")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", choices=("all", "none"), default="none")
    parser.add_argument("--budget", type=float, default=70, help="seconds; what is not begun by then is left out")
    parser.add_argument("--json", type=Path)
    options, begun = parser.parse_args(), time.perf_counter()
    report: dict[str, Any] = {"machine": machine("numpy", "torch", "transformers"), "max_length": MAX_LENGTH}
    if options.device == "cuda":
        report["machine"] |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    report["shapes"], texts, left = [], bare.texts(options.rows), []
    with tempfile.TemporaryDirectory() as scratch:
        for shape in options.shapes.split(","):
            if time.perf_counter() - begun > options.budget:
                left.append(shape)
                continue
            one = Measured(bare.encoder_folder(shape, Path(scratch, shape)), shape, texts, options)
            report["shapes"].append(one.found)
            print(f"{shape}: products {one.product / 1000:,.1f} TFLOP/s, {one.found['parts']}", flush=True)
            for name, part in one.parts():
                if time.perf_counter() - begun > options.budget:
                    left.append(f"{shape}: {name}")
                    continue
                with noted(one.found, name):
                    part()
                if options.json:
                    options.json.write_text(json.dumps(report | {"left_out": left}, indent=1) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - begun:.0f} s" + (f"; out of time for {', '.join(left)}" if left else ""))
    sys.exit(any("failed" in one for one in report["shapes"]))


if __name__ == "__main__":
    main()
