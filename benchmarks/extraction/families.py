"""How fast do ModernBERT, Qwen3 and DeBERTa turn texts into vectors on one core?

Models of their shapes with random weights and MiniLM's tokenizer: for speed, weights do not matter. Texts are real:
review snippets, passages of speeches of 250 tokens, and of 2,000 (DeBERTa: 500, of its 512 positions). Every contender
lives in a process of its own on one core, and its seconds are its processor time, since other processes may use the
machine; contenders take turns. The vector is the mean of the tokens', so that nobody saves work in the last layer, and
figures hold for any number of layers: measured are 11 of ModernBERT-base's 22 (4 of them global, as 8 of 22), 6 of
Qwen3-0.6B's 28 and 6 of DeBERTa-v3 base's 12, which are all alike. Useful FLOP are those of true tokens, of the keys
that a query sees, and of the buckets of distances that DeBERTa's queries and keys meet. The product rate is the best of
torch, oneDNN and NumPy on the same core in the same turns.

    taskset -c 0 python -m benchmarks.extraction.families --model modernbert
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["BENCHMARK_CPU_TIME"] = "1"

import numpy as np

from benchmarks.extraction import peers
from benchmarks.extraction.data import texts as real_texts
from benchmarks.extraction.yardstick import product_rate, token_counts
from benchmarks.machine import RESULTS, machine, slug
from demo import fetch

MAX_LENGTH = peers.MAX_LENGTH = 2000
LAYERS = {"modernbert": 11, "qwen3": 6, "deberta": 6}
ROWS = {"27": 16, "250": 3, "500": 2, "2000": 1}  # texts by their tokens
KINDS = {"modernbert": "27,250,2000", "qwen3": "27,250,2000", "deberta": "27,250,500"}


def make_folder(name: str, scratch: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    layers, tokens = LAYERS[name], {"vocab_size": 30522, "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
    if name == "modernbert":
        marks = {"cls_token_id": 101, "sep_token_id": 102}
        config = transformers.ModernBertConfig(num_hidden_layers=layers, **tokens, **marks)
    elif name == "deberta":
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        config = transformers.DebertaV2Config(
            num_hidden_layers=layers, **sizes, **tokens, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False,
        )  # fmt: skip
    else:
        sizes = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8}
        config = transformers.Qwen3Config(num_hidden_layers=layers, head_dim=128, **sizes, **tokens)
    folder = scratch / name
    transformers.AutoModel.from_config(config).eval().save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(fetch.encoder() / file, folder)
    return folder


def texts_of(kind: str) -> list[str]:
    if kind == "27":
        return real_texts("short")[: ROWS[kind]]
    passages, words = " ".join(real_texts("long")).split(), int(kind)  # more words than tokens: cut by the tokenizer
    return [" ".join(passages[i * words : (i + 1) * words]) for i in range(ROWS[kind])]


def useful_flop(config: Any, lengths: np.ndarray) -> float:
    """FLOP of the matrix products that the texts need, two a multiply-add; no padding."""
    dim, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or dim // heads
    if config.model_type == "deberta-v2":
        each = [
            n * (8 * dim * dim + 4 * dim * inner) + 4 * dim * n * (n + min(n, 2 * config.position_buckets))
            for n in lengths.tolist()
        ]
        return float(config.num_hidden_layers * sum(each))
    keys = getattr(config, "num_key_value_heads", heads) * head
    whole = 2 * dim * (2 * heads * head + 2 * keys) + 6 * dim * inner
    causal, total = config.model_type == "qwen3", 0.0
    for i in range(config.num_hidden_layers):
        reach = config.sliding_window if config.layer_types[i] == "sliding_attention" else MAX_LENGTH
        for length in lengths.tolist():
            query = np.arange(length)
            seen = np.minimum(query, reach) + 1 + (0 if causal else np.minimum(length - 1 - query, reach))
            total += length * whole + 4 * heads * head * float(seen.sum())
    return total


def embedcache(folder: Path, device: str, dtype: str) -> dict[str, peers.Run]:
    from embedcache.encoder import Encoder

    positions = json.loads((folder / "config.json").read_text("utf-8"))["max_position_embeddings"]
    encoder = Encoder.load(folder, max_length=min(MAX_LENGTH, positions), dtype=dtype, device=device)
    assert encoder.kernel == "native"
    return {"native": lambda texts: encoder.encode_texts(texts, [("mean", -1)])[0]}


def plain(folder: Path, device: str, dtype: str) -> dict[str, peers.Run]:
    """The reference of every cosine: each text alone. Not timed."""
    import torch

    model, tokenizer = peers._transformer(folder, dtype), _tokens(folder)

    @torch.inference_mode()
    def run(texts: list[str]) -> np.ndarray:
        rows = (torch.tensor([one.ids]) for one in tokenizer.encode_batch_fast(texts))
        return np.stack([model(input_ids=one).last_hidden_state[0].mean(0).numpy() for one in rows])

    return {"alone": run}


def sentence_transformers(folder: Path, device: str, dtype: str) -> dict[str, peers.Run]:
    import torch
    from sentence_transformers import SentenceTransformer, models

    transformer = models.Transformer(
        str(folder), max_seq_length=MAX_LENGTH, model_args={"dtype": getattr(torch, dtype)}
    )
    pool = models.Pooling(transformer.get_word_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pool], device=device)

    def make(size: int) -> peers.Run:
        options = {"batch_size": size, "convert_to_tensor": True, "show_progress_bar": False}
        return lambda texts: model.encode(texts, **options).float().numpy()

    return {f"batch {size}": make(size) for size in (1, 16)}


def _tokens(folder: Path) -> Any:
    backend = peers._tokenizer(folder).backend_tokenizer
    backend.enable_truncation(MAX_LENGTH)
    backend.no_padding()
    return backend


def _row_model(folder: Path, **options: str) -> Any:
    """(input_ids, attention_mask) to the rows' vectors: a module that other runtimes' converters can trace."""
    import torch

    class RowModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = peers._transformer(folder, "float32", **options)
            self.model.config.use_cache = False

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weight = attention_mask.unsqueeze(-1).float()
            return (hidden * weight).sum(1) / weight.sum(1)

    return RowModel().eval()


def _batched(folder: Path, call: Any, budget: int) -> peers.Run:
    tokenizer = _tokens(folder)

    def run(texts: list[str]) -> np.ndarray:
        vectors: list[Any] = [None] * len(texts)
        for rows, ids, mask in peers._batches(tokenizer, texts, budget, 0):
            for row, vector in zip(rows, call(ids, mask), strict=True):
                vectors[row] = np.array(vector)
        return np.stack(vectors)

    return run


def onnx_runtime(folder: Path, device: str, dtype: str) -> dict[str, peers.Run]:
    import onnxruntime
    import torch

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = peers._cores(), 3
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch, "model.onnx"))
        names = ["input_ids", "attention_mask"]
        axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"vector": {0: "batch"}}
        # The older exporter: the graphs that the newer one makes of these models give other vectors (torch 2.13).
        example = (torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64))
        more = {"input_names": names, "output_names": ["vector"], "dynamic_axes": axes, "opset_version": 17}
        torch.onnx.export(_row_model(folder), example, path, dynamo=False, **more)
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def call(ids: np.ndarray, mask: np.ndarray) -> Any:
        return session.run(["vector"], {"input_ids": ids, "attention_mask": mask})[0]

    return {f"{budget} tokens": _batched(folder, call, budget) for budget in (512, 2048)}


def openvino(folder: Path, device: str, dtype: str) -> dict[str, peers.Run]:
    import openvino as ov
    import torch

    names = ["input_ids", "attention_mask"]
    example = dict.fromkeys(names, torch.ones(2, 16, dtype=torch.int64))
    shapes = [(name, [-1, -1], ov.Type.i64) for name in names]
    converted = ov.convert_model(_row_model(folder), example_input=example, input=shapes)
    options = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype]}
    compiled = ov.Core().compile_model(converted, "CPU", options | {"PERFORMANCE_HINT": "LATENCY"})

    def call(ids: np.ndarray, mask: np.ndarray) -> Any:
        return compiled({"input_ids": ids, "attention_mask": mask})[0]

    return {f"{budget} tokens": _batched(folder, call, budget) for budget in (512, 2048)}


WAYS = {
    f"{name}, {dtype}": (way, dtype)
    for name, way in (
        ("embedcache", embedcache),
        ("sentence-transformers", sentence_transformers),
        ("ONNX Runtime", onnx_runtime),
        ("OpenVINO", openvino),
    )
    for dtype in ("float32", "bfloat16")
    if (name, dtype) != ("ONNX Runtime", "bfloat16")
}


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min())


def measure(kind: str, there: list[peers.Contender], reference: Any, config: Any, folder: Path, turns: int) -> Any:
    texts = texts_of(kind)
    lengths = token_counts(folder, texts, min(int(kind), MAX_LENGTH) if kind != "27" else MAX_LENGTH)
    if kind != "27":  # so that every contender reads exactly so many tokens
        texts = cut(folder, texts, int(kind))
    flop, wanted = useful_flop(config, lengths), reference.run(texts)[1]
    results: dict[str, Any] = {}
    for one in there:
        if kind == "27":  # the others are one batch for everybody
            one.tune(texts[:6])
        results[one.name] = {"settings": one.best, "worst_cosine": worst_cosine(one.run(texts)[1], wanted)}
        results[one.name]["cpu_seconds"] = []
    shape = {"dim": config.hidden_size, "ffn": config.intermediate_size}
    rates: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(turns):
        for dtype, values in rates.items():
            values.append(max(product_rate(shape, "cpu", dtype).values()))
        for one in there:
            results[one.name]["cpu_seconds"].append(one.run(texts)[0])
    for one in there:
        result = results[one.name]
        seconds = statistics.median(result["cpu_seconds"])
        result |= {"tokens_per_second": int(lengths.sum()) / seconds, "useful_gflops": flop / seconds / 1e9}
        result["of_product_rate"] = result["useful_gflops"] / statistics.median(rates[one.dtype])
        rates_text = f"{result['tokens_per_second']:7.0f} tokens/s {result['useful_gflops']:6.1f} GFLOP/s"
        share = f"{result['of_product_rate']:4.0%}  worst cosine {result['worst_cosine']:.6f}"
        print(f"{kind:>5} {one.name:32} {rates_text} {share}  ({one.best})", flush=True)
    return {"tokens": lengths.tolist(), "product_gflops": rates, "results": results, "ratios": ratios(results)}


def cut(folder: Path, texts: list[str], tokens: int) -> list[str]:
    """The texts with as many characters as make so many tokens, special ones included."""
    backend = peers._tokenizer(folder).backend_tokenizer
    backend.no_truncation()
    return [text[: backend.encode(text).offsets[tokens - 2][1]] for text in texts]


def ratios(results: dict[str, Any]) -> dict[str, Any]:
    """Of each of ours to every peer: the median, lowest and highest of the turns' ratios."""
    found = {}
    for ours in (name for name in results if name.startswith("embedcache")):
        for peer in (name for name in results if not name.startswith("embedcache")):
            pairs = zip(results[peer]["cpu_seconds"], results[ours]["cpu_seconds"], strict=True)
            turns = [theirs / mine for theirs, mine in pairs]
            found[f"{ours} / {peer}"] = [statistics.median(turns), min(turns), max(turns)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="modernbert", choices=LAYERS)
    parser.add_argument("--only", default="", help="contenders whose names hold one of these, with commas between")
    parser.add_argument("--kinds", help="tokens of the texts; default: " + str(KINDS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/family-MODEL-PROCESSOR.json")
    options = parser.parse_args()
    from transformers import AutoConfig

    about = machine("numpy", "torch", "transformers", "sentence-transformers", "onnxruntime")
    report: dict[str, Any] = {"machine": about, "model": options.model, "layers": LAYERS[options.model]}
    path = options.json or RESULTS / f"family-{options.model}-{slug(about['cpu'])}.json"
    report["load_average_at_start"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(options.model, Path(scratch))
        config = AutoConfig.from_pretrained(folder)
        reference = peers.Contender("reference", folder, "cpu", (plain, "float32"))
        there = []
        for name, way in WAYS.items():
            if any(part in name for part in options.only.split(",")):
                one = peers.Contender(name, folder, "cpu", way)
                report.setdefault("contenders", {})[name] = one.about | ({"failed": one.failed} if one.failed else {})
                print(f"{name}: {one.failed or 'ready'}", file=sys.stderr, flush=True)
                if not one.failed:
                    there.append(one)
        for kind in (options.kinds or KINDS[options.model]).split(","):
            report[kind] = measure(kind, there, reference, config, folder, options.turns)
            report["load_average_at_end"] = os.getloadavg()[0]
            path.write_text(json.dumps(report, indent=1) + "\n")
        for one in (reference, *there):
            one.close()


if __name__ == "__main__":
    main()
