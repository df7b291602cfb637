"""Ways from texts to CLS vectors, for speed.py: embedcache's own, and others as their users would at best.

Each is a function `(folder, device, dtype) -> {variant: run}`, where `run(texts)` gives float32 [n, D] in order, and
tokenizing is part of it. Variants are settings between which a user would choose (batch size, latency or throughput);
the benchmark tries them all on a sample of the texts and keeps the fastest. Every contender lives in a process of its
own (`Contender`), so that nobody's threads, allocator or settings get in another's way.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

MAX_LENGTH = 250
Run = Callable[[list[str]], np.ndarray]


def embedcache(folder: Path, device: str, dtype: str) -> dict[str, Run]:
    from embedcache.encoder import Encoder
    from embedcache.encoder.runner_native import backend

    encoder = Encoder.load(folder, max_length=MAX_LENGTH, dtype=dtype, device=device)
    kernel = f"native, {backend(dtype)}" if encoder.kernel == "native" else encoder.kernel
    return {kernel: lambda texts: encoder.encode_texts(texts, [("cls", -1)])[0]}


def article(folder: Path, device: str, dtype: str) -> dict[str, Run]:
    """The tutorial's loop, with the encoder's dropout off: batches of 32 as they come, padded to max_length."""
    import torch

    model, tokenizer = _transformer(folder, dtype).to(device), _tokenizer(folder)

    def run(texts: list[str]) -> np.ndarray:
        vectors = []
        for i in range(0, len(texts), 32):
            options = {"padding": "max_length", "truncation": True, "max_length": MAX_LENGTH, "return_tensors": "pt"}
            tokens = tokenizer(texts[i : i + 32], **options).to(device)
            with torch.no_grad():
                vectors.append(model(**tokens).last_hidden_state[:, 0].float().cpu().numpy())
        return np.concatenate(vectors)

    return {"batch 32": run}


def plain(folder: Path, device: str, dtype: str) -> dict[str, Run]:
    """Plain transformers in batches of like length: the reference of every cosine. Not timed."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    model, tokenizer = _transformer(folder, dtype).to(device), _backend(folder)
    pad = model.config.pad_token_id or 0

    def run(texts: list[str]) -> np.ndarray:
        vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
        for rows, ids, mask in _batches(tokenizer, texts, 2048, pad):
            inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            with torch.inference_mode():
                hidden = model(**{name: value.to(device) for name, value in inputs.items()}).last_hidden_state
            vectors[rows] = hidden[:, 0].float().cpu().numpy()
        return vectors

    return {"2048 tokens": run}


def sentence_transformers(folder: Path, device: str, dtype: str) -> dict[str, Run]:
    import torch
    from sentence_transformers import SentenceTransformer, models

    def make(size: int, **attention: str) -> Run:
        options = {"dtype": getattr(torch, dtype), **attention}
        transformer = models.Transformer(str(folder), max_seq_length=MAX_LENGTH, model_args=options)
        pooling = models.Pooling(transformer.get_word_embedding_dimension(), pooling_mode="cls")
        model = SentenceTransformer(modules=[transformer, pooling], device=device)
        options = {"batch_size": size, "convert_to_tensor": True, "show_progress_bar": False}
        return lambda texts: model.encode(texts, **options).float().cpu().numpy()

    if device == "cpu":
        return {f"batch {size}": make(size) for size in (32, 64)}
    runs = {f"batch {size}": make(size) for size in (64, 256)}
    if importlib.util.find_spec("flash_attn") and dtype != "float32":
        flash = {"attn_implementation": "flash_attention_2"}
        runs |= {f"batch {size}, FlashAttention 2": make(size, **flash) for size in (64, 256)}
    return runs


def onnx_runtime(folder: Path, device: str, dtype: str) -> dict[str, Run]:
    """Exported by torch, its own graph optimizations on, with and without its optimizer for transformers."""
    import tempfile

    import onnxruntime
    import torch
    from onnxruntime.transformers import optimizer

    model, tokenizer = _cls_model(folder, attn_implementation="eager"), _backend(folder)
    config, names = model.model.config, ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"cls": {0: "batch"}}
    sessions = {}
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = _cores()
    settings.log_severity_level = 3
    with tempfile.TemporaryDirectory() as scratch:
        paths = {"plain graph": Path(scratch, "model.onnx"), "fused graph": Path(scratch, "fused.onnx")}
        # The older exporter: the optimizer finds attention and embeddings in its graphs, not in the newer one's.
        example = (torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64))
        more = {"input_names": names, "output_names": ["cls"], "dynamic_axes": axes, "opset_version": 17}
        torch.onnx.export(model, example, str(paths["plain graph"]), dynamo=False, **more)
        sizes = {"num_heads": config.num_attention_heads, "hidden_size": config.hidden_size}
        fused = optimizer.optimize_model(str(paths["plain graph"]), model_type="bert", opt_level=0, **sizes)
        fused.save_model_to_file(str(paths["fused graph"]))
        for name, path in paths.items():
            sessions[name] = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def make(session: Any, budget: int) -> Run:
        def run(texts: list[str]) -> np.ndarray:
            vectors = np.empty((len(texts), config.hidden_size), np.float32)
            for rows, ids, mask in _batches(tokenizer, texts, budget, config.pad_token_id or 0):
                vectors[rows] = session.run(["cls"], {"input_ids": ids, "attention_mask": mask})[0]
            return vectors

        return run

    budgets = (1024, 4096)
    return {f"{name}, {budget} tokens": make(sessions[name], budget) for name in sessions for budget in budgets}


def openvino(folder: Path, device: str, dtype: str) -> dict[str, Run]:
    import openvino as ov
    import torch

    model, tokenizer = _cls_model(folder), _backend(folder)
    config, names = model.model.config, ["input_ids", "attention_mask"]
    example = dict.fromkeys(names, torch.ones(2, 16, dtype=torch.int64))
    shapes = [(name, [-1, -1], ov.Type.i64) for name in names]
    converted = ov.convert_model(model, example_input=example, input=shapes)
    core, hint = ov.Core(), {"float32": "f32", "bfloat16": "bf16"}[dtype]

    def make(mode: str, budget: int) -> Run:
        options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": mode.upper()}
        compiled = core.compile_model(converted, "CPU", options)
        if dtype not in repr(compiled.get_property("INFERENCE_PRECISION_HINT")):
            raise RuntimeError(f"OpenVINO does not compute in {dtype} on this processor")

        def run(texts: list[str]) -> np.ndarray:
            vectors = np.empty((len(texts), config.hidden_size), np.float32)
            queue = ov.AsyncInferQueue(compiled)

            def keep(request: Any, rows: np.ndarray) -> None:
                vectors[rows] = request.get_output_tensor(0).data

            queue.set_callback(keep)
            for rows, ids, mask in _batches(tokenizer, texts, budget, config.pad_token_id or 0):
                queue.start_async({"input_ids": ids, "attention_mask": mask}, rows)
            queue.wait_all()
            return vectors

        return run

    modes = ("latency", "throughput")
    return {f"{mode}, {budget} tokens": make(mode, budget) for mode in modes for budget in (1024, 4096)}


REFERENCE = "transformers, float32"
OURS = {"embedcache, float32": (embedcache, "float32"), "embedcache, bfloat16": (embedcache, "bfloat16")}
PEERS = {
    "article's loop, float32": (article, "float32"),
    "sentence-transformers, float32": (sentence_transformers, "float32"),
    "sentence-transformers, bfloat16": (sentence_transformers, "bfloat16"),
}
CPU_PEERS = {
    "ONNX Runtime, float32": (onnx_runtime, "float32"),
    "OpenVINO, float32": (openvino, "float32"),
    "OpenVINO, bfloat16": (openvino, "bfloat16"),
}
CUDA_ONLY = {
    "embedcache, float16": (embedcache, "float16"),
    "sentence-transformers, float16": (sentence_transformers, "float16"),
}
ALL = {REFERENCE: (plain, "float32"), **OURS, **PEERS, **CPU_PEERS, **CUDA_ONLY}
PACKAGES = {"sentence-transformers": "sentence-transformers", "ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def contenders(device: str) -> list[str]:
    return list({**OURS, **PEERS, **(CPU_PEERS if device == "cpu" else CUDA_ONLY)})


class Contender:
    """One way, alive in a process of its own that waits while it is not asked.

    Attributes: name; dtype; about: versions; variants: their names; best: the one that runs; failed: why it cannot run.
    """

    def __init__(self, name: str, folder: Path, device: str, way: tuple[Any, str] | None = None) -> None:
        """way: (function of a module, dtype), if it is not that of ``ALL``."""
        way = way or ALL[name]
        self.name, self.dtype = name, way[1]
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, folder, device, way), daemon=True)
        self._process.start()
        theirs.close()
        self.failed, self.variants, self.about = self._receive()
        self.best = self.variants[0] if self.variants else ""

    def run(self, texts: list[str], variant: str | None = None) -> tuple[float, np.ndarray]:
        """(seconds, vectors) of one pass over the texts."""
        self._pipe.send((texts, variant or self.best))
        failed, seconds, vectors = self._receive()
        if failed:
            raise RuntimeError(f"{self.name}: {failed}")
        return seconds, vectors

    def tune(self, texts: list[str]) -> dict[str, float]:
        """Take the fastest variant on these texts: seconds of each, after one pass that does not count."""
        seconds = {}
        if len(self.variants) > 1:
            seconds = {name: min(self.run(texts, name)[0] for _ in range(2)) for name in self.variants}
            self.best = min(seconds, key=lambda name: seconds[name])
        return seconds

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            return f"its process ended ({self._process.exitcode})", [], {}


def _serve(pipe: Any, name: str, folder: Path, device: str, way: tuple[Any, str]) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    package = PACKAGES.get(name.split(",")[0])
    make, dtype = way
    clock = time.process_time if os.environ.get("BENCHMARK_CPU_TIME") else time.perf_counter
    runs: dict[str, Run] = {}
    try:
        from transformers.utils import logging as of_transformers

        of_transformers.disable_progress_bar()
        runs = make(folder, device, dtype)
        pipe.send(("", list(runs), {package: metadata.version(package)} if package else {}))
    except ImportError as error:
        pipe.send((f"not installed here ({error})", [], {}))
    except Exception as error:  # a peer that cannot run this model must not cost the other figures
        pipe.send((f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", [], {}))
    while True:
        try:
            texts, variant = pipe.recv()
        except EOFError:
            return
        start = clock()
        try:
            vectors = runs[variant](texts)
            pipe.send(("", clock() - start, vectors))
        except Exception as error:
            pipe.send((f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", 0.0, None))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _transformer(folder: Path, dtype: str, **options: Any) -> Any:
    import torch
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True, **options).eval()


def _cls_model(folder: Path, **options: str) -> Any:
    """(input_ids, attention_mask) to the CLS row: a module that other runtimes' converters can trace."""
    import torch

    class ClsModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _transformer(folder, "float32", **options)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]

    return ClsModel().eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _backend(folder: Path) -> Any:
    """The Rust tokenizer: it tokenizes on all cores, without the records that the Python one keeps."""
    backend = _tokenizer(folder).backend_tokenizer
    backend.enable_truncation(MAX_LENGTH)
    backend.no_padding()
    return backend


def _batches(
    tokenizer: Any, texts: list[str], budget: int, pad: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, ids, mask) of padded batches of like length, the longest first, of at most so many tokens each."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    lengths = np.array([len(row) for row in rows])
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        longest = int(lengths[order[start]])
        batch = order[start : start + max(1, budget // longest)]
        ids = np.full((len(batch), longest), pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(batch):
            ids[i, : lengths[row]], mask[i, : lengths[row]] = rows[row], 1
        yield batch, ids, mask
        start += len(batch)
