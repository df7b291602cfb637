"""Folders of sentence-transformers, written file by file in the spellings of its versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

OLD, NEW = "sentence_transformers.models.{}", "sentence_transformers.base.modules.x.{}"
TANH = "torch.nn.modules.activation.Tanh"


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def make_folder(
    base: Path,
    to: Path,
    pooling: dict[str, Any] | None = None,
    *steps: tuple[str, dict[str, Any], dict[str, Any]],
    inner: str = "",
    settings: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    spelling: str = OLD,
) -> Path:
    """``base``'s encoder, then a Pooling, then steps: (class, config.json, shapes of its weights).

    inner: the subfolder of the encoder. settings: sentence_bert_config.json. config: that of the whole.
    """
    from safetensors.numpy import save_file

    shutil.copytree(base, to / inner, dirs_exist_ok=True)
    listed = [("Transformer", inner), ("Pooling", "1_Pooling")]
    pooling = {} if pooling is None else pooling
    width = {} if "embedding_dimension" in pooling else {"word_embedding_dimension": 32}
    write_json(to / "1_Pooling" / "config.json", width | pooling)
    rng = np.random.default_rng(0)
    for number, (kind, about, shapes) in enumerate(steps, start=2):
        folder = to / f"{number}_{kind}"
        write_json(folder / "config.json", about)
        if shapes:
            weights = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
            save_file(weights, folder / "model.safetensors")
        listed.append((kind, folder.name))
    write_json(
        to / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": spelling.format(kind)}
            for i, (kind, path) in enumerate(listed)
        ],
    )
    if settings is not None:
        write_json(to / inner / "sentence_bert_config.json", settings)
    if config is not None:
        write_json(to / "config_sentence_transformers.json", config)
    return to


def dense(width: int, out: int, activation: str | None = TANH, bias: bool = True, **more: Any) -> tuple[Any, ...]:
    """A Dense step; activation None: as its config.json does not say."""
    about = {"in_features": width, "out_features": out, "bias": bias, **more}
    about |= {} if activation is None else {"activation_function": activation}
    shapes: dict[str, Any] = {"linear.weight": (out, width)} | ({"linear.bias": (out,)} if bias else {})
    if more.get("use_residual") and width != out:
        shapes["residual.weight"] = (out, width)
    return "Dense", about, shapes


def layer_norm(width: int) -> tuple[Any, ...]:
    return "LayerNorm", {"dimension": width}, {"norm.weight": (width,), "norm.bias": (width,)}


NORMALIZE = ("Normalize", {}, {})
