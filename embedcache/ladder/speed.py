"""How fast this machine is with an encoder: a few texts are encoded, and its layers trained on them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from embedcache.cache import open_cache
from embedcache.encoder import Encoder
from embedcache.encoder.hardware import resolve_device
from embedcache.extraction.vectors import AskedVectors, choose
from embedcache.finetune import engine_native, native_layers
from embedcache.finetune.blocks import Block, Ragged
from embedcache.finetune.compute import faster_compute, takes_bfloat16
from embedcache.finetune.config import BATCH
from embedcache.finetune.inputs import TokenIds
from embedcache.finetune.top import WholeModel
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View
from embedcache.prediction.rows import is_cache
from embedcache.tables.rows import Columns, read_rows

SAMPLE = 128  # texts that are encoded, and trained on
TIMED = 4  # epochs of the native engine


@dataclass
class MachineSpeed:
    """A table or a cache, and how fast an encoder reads it here; JSON types.

    Attributes:
        rows: of the input. tokens: of a row, as encoded; text_bytes: of a row.
        encode: tokens a second. train: tokens a second, forward and backward through all layers; None where no rung
            trains layers.
        native: tokens a second, forward and backward through one layer of the native engine; None where that engine
            does not train the last layers.
        layers, width: of the encoder. parameters: of all its layers.
        vectors: that are stored of a row. hint: of a faster --compute, where all layers are trained.
    """

    rows: int
    tokens: float
    text_bytes: float
    encode: float
    train: float | None
    native: float | None
    layers: int
    width: int
    parameters: int
    vectors: int
    hint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    source: str,
    model: str | None,
    device: str,
    trust_remote_code: bool,
    trains: bool,
    text: str,
    compute: str = "auto",
    max_length: int | None = None,
) -> MachineSpeed:
    """Encode a few of the texts, and train on them if any rung does.

    Args:
        source: table or cache.
        model: the encoder; None: that of the cache.
        device: see ``Encoder.load``.
        trust_remote_code: see ``Encoder.load``.
        trains: whether layers will be trained.
        text: the table's column.
        compute: of the training's products, as finetune has it.
        max_length: of a table's texts; None is what suits the encoder.
    """
    texts, rows, characters = _sample(source, text)
    settings: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    if is_cache(source):
        with open_cache(source) as cache:
            model, vectors = model or str(cache.encoder["source"]), len(cache.outputs)
            identity = cache.encoder["identity"]
            settings |= {"max_length": identity["max_length"], "dtype": identity["compute_dtype"]}
    else:
        assert model is not None
        chosen = choose(model, AskedVectors(max_length=max_length), None, trust_remote_code)
        vectors, settings = len(chosen.outputs), {**settings, **chosen.settings}
    encoder = Encoder.load(model, **settings)
    tokens = encoder.tokenize(texts)
    outputs = [("mean", -1)] if encoder.kernel != "static" else [("model", -1)]
    encoder.encode_tokens(tokens, outputs)  # loads what is loaded once
    start = time.perf_counter()
    encoder.encode_tokens(encoder.tokenize(texts), outputs)
    lengths = np.asarray(tokens.rows.lengths)
    encode = float(lengths.sum()) / (time.perf_counter() - start)
    train, native, parameters = None, None, 0
    if trains and encoder.kernel != "static":
        tuned = Encoder.load(model, **{**settings, "dtype": "float32"})
        train, parameters = _train(tuned, texts, device, compute)
        native = _train_natively(tuned, lengths, compute) if resolve_device(device) == "cpu" else None
    return MachineSpeed(
        rows=rows, tokens=float(lengths.mean()), text_bytes=characters / max(rows, 1), encode=encode, train=train,
        native=native, layers=encoder.layers, width=encoder.dim, parameters=parameters, vectors=vectors,
        hint=faster_compute(compute, resolve_device(device)),
    )  # fmt: skip


def _sample(source: str, text: str) -> tuple[list[str], int, int]:
    """(some texts, of all rows of a cache or the first ones of a table; rows; bytes of all texts, or characters)."""
    if is_cache(source):
        with open_cache(source) as cache:
            some = range(0, cache.rows, max(1, cache.rows // SAMPLE))[:SAMPLE]
            return [cache.texts[row] for row in some], cache.rows, int(cache.texts.offsets[-1])
    first: list[str] = []
    rows = characters = 0
    for part in read_rows([source], Columns(text=text)):
        texts = [one or "" for one in part.texts.to_pylist()]
        first, rows, characters = first or texts, rows + len(texts), characters + sum(map(len, texts))
    return first[:: max(1, len(first) // SAMPLE)][:SAMPLE], rows, characters


def _train(encoder: Encoder, texts: Sequence[str], device: str, compute: str) -> tuple[float, int]:
    """(tokens a second of a forward and backward pass through all layers, parameters)."""
    place = resolve_device(device)
    model = WholeModel(encoder.model).to(place).requires_grad_(True)
    rows = encoder.tokenize(texts).rows
    alike = np.argsort(np.asarray(rows.lengths), kind="stable")[max(0, (len(texts) - BATCH) // 2) :][:BATCH]
    x, mask = TokenIds(rows, encoder.pad_id).batch(alike)  # little padding, as in training
    for _ in range(2):  # the first one loads and reserves
        start = time.perf_counter()
        with torch.autocast(place.split(":")[0], torch.bfloat16, enabled=takes_bfloat16(compute, place)):
            out = model(x.to(place), mask.to(place))
        out.float().square().mean().backward()
        float(out.detach().sum())  # waits for a GPU
        seconds = time.perf_counter() - start
    return float(mask.sum()) / seconds, sum(weight.numel() for weight in model.parameters())


def _train_natively(encoder: Encoder, lengths: np.ndarray, compute: str) -> float | None:
    """Tokens a second, forward and backward, of the last layer for every token; on states of noise.

    The first epoch is not timed: it loads and reserves.
    """
    if native_layers.why_not_model(encoder):
        return None
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.random.default_rng(0).standard_normal((offsets[-1], encoder.dim), np.float32).astype(np.float16)
    head = {"head2": np.zeros((2, encoder.dim), np.float32), "head2_bias": np.zeros(2, np.float32)}
    shape = replace(native_layers.shape_of_model(encoder, int(lengths.max())), query="mean")
    start = native_layers.last_tensors(encoder, 1) | head
    products = "bfloat16" if takes_bfloat16(compute, "cpu") else "float32"
    y = np.arange(len(lengths), dtype=np.int32) % 2
    task = Task(View(values, y, np.arange(len(lengths))), None, 2)
    states = Ragged(values, offsets[:-1], lengths.astype(np.int64))

    def seconds(epochs: int) -> float:
        begun = time.perf_counter()
        block = Block(HeadSpec(hidden=0), 0, start, batch_size=BATCH, epochs=epochs)
        engine_native.train(states, shape, [task], [block], compute=products)
        return time.perf_counter() - begun

    seconds(1)
    return TIMED * float(offsets[-1]) / seconds(TIMED)
