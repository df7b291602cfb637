"""What extraction is measured against: the fewest FLOP that its vectors need, and the machine's matrix product rate."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

PRODUCT_ROWS = {"cpu": 2048, "cuda": 16384}


def read_shape(folder: Path) -> dict[str, int]:
    """layers, dim, ffn, heads of a model folder, whatever its family calls them."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    ffn = getattr(config, "intermediate_size", None) or config.hidden_dim
    sizes = {"layers": config.num_hidden_layers, "dim": config.hidden_size, "ffn": ffn}
    return sizes | {"heads": config.num_attention_heads}


def token_counts(folder: Path, texts: list[str], max_length: int) -> np.ndarray:
    """int64 [n]: tokens of each text as the model's tokenizer cuts it, special ones included."""
    from transformers import AutoTokenizer

    backend = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    backend.enable_truncation(max_length)
    backend.no_padding()
    return np.array([len(encoding.ids) for encoding in backend.encode_batch(texts)], np.int64)


def useful_flop(lengths: np.ndarray, shape: dict[str, int]) -> float:
    """FLOP of the matrix products that the CLS vectors of the last layer need, for texts of so many tokens.

    Two a multiply-add; no padding. All layers but the last compute every token. The last one needs the row of the CLS
    token alone: one query, the keys folded into it and the values after the weighted sum (docs/extraction.md).
    """
    layers, dim, ffn, heads = (shape[name] for name in ("layers", "dim", "ffn", "heads"))
    tokens = np.asarray(lengths, np.float64)
    whole = tokens * (8 * dim**2 + 4 * dim * ffn) + 4 * tokens**2 * dim
    last = 8 * dim**2 + 4 * dim * ffn + 4 * heads * tokens * dim
    return float((whole * (layers - 1) + last).sum())


def product_rate(shape: dict[str, int], device: str, dtype: str) -> dict[str, float]:
    """GFLOP/s of a layer's matrix products, by each way that there is; the best of them is the machine's rate."""
    import torch

    of, kind = getattr(torch, dtype), device.partition(":")[0]
    dim, ffn, rows = shape["dim"], shape["ffn"], PRODUCT_ROWS[kind]
    sizes, seconds = ((dim, 3 * dim), (dim, dim), (dim, ffn), (ffn, dim)), dict[str, float]()
    with torch.inference_mode():
        for inner, outer in sizes:
            x, w = torch.randn(rows, inner).to(device, of), torch.randn(outer, inner).to(device, of)
            for name, product in _ways(x, w, kind).items():
                seconds[name] = seconds.get(name, 0.0) + _fastest(product, kind)
    flop = sum(2 * rows * inner * outer for inner, outer in sizes)
    return {name: flop / spent / 1e9 for name, spent in seconds.items()}


def _ways(x: Any, w: Any, kind: str) -> dict[str, Any]:
    """x w' by what this device has; torch's float32 product is MKL's, which does not use AVX-512 everywhere."""
    import torch

    ways: dict[str, Any] = {"torch": lambda: torch.nn.functional.linear(x, w)}
    if kind == "cpu":
        bias = torch.zeros(len(w), dtype=w.dtype)
        ways["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")
        if x.dtype == torch.float32:
            ways["NumPy"] = lambda: np.dot(x.numpy(), w.numpy().T)
    return ways


def _fastest(product: Any, kind: str) -> float:
    import torch

    clock = time.process_time if os.environ.get("BENCHMARK_CPU_TIME") else time.perf_counter
    best = float("inf")
    for _ in range(4):
        start = clock()
        product()
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


class Utilisation:
    """The GPU's utilization while a block runs, in per cent, every 100 ms; empty without nvidia-smi."""

    def __enter__(self) -> Utilisation:
        self.percent: list[int] = []
        query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        try:
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        except OSError:
            return self
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.percent += [int(line) for line in self._process.stdout if line.strip().isdigit()]

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_process"):
            self._process.terminate()
            self._process.wait()
            self._reader.join()
