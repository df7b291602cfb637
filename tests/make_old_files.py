"""Write tests/data/0.1: an encoder, a cache, indexes, a map and a run of each kind, small enough to keep in git.

They stand for what users already have. Run it in an empty folder with the embedcache whose files they are to be, never
with a newer one: PYTHONPATH=THAT_CHECKOUT python .../tests/make_old_files.py; then pack the folder. test_old_files.py
opens them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind PYTHONPATH: only tests.conftest is taken from here

import numpy as np
import torch
from transformers import BertConfig, BertModel

import embedcache as ec
from embedcache.audit import audit_cache
from embedcache.cache import open_cache
from embedcache.extraction.job import extract
from embedcache.index.job import index_cache
from embedcache.runs.job import train_head
from embedcache.serve.projection import default_map_path, make_map, save_map
from tests.conftest import WORDS, write_tokenizer

ROWS = 60
RUNS = {
    "classification": {"label": "label", "lr": [1e-2, 1e-1], "hidden": [0, 4], "class_weight": ["balanced"]},
    "multilabel": {"label": "topics", "lr": [1e-2], "hidden": [4]},
    "regression": {"label": "stars", "lr": [1e-2], "hidden": [4], "task": "regression"},
    "columns": {"label": "label,topics", "lr": [1e-2], "hidden": [0]},
    "folds": {"label": "label", "lr": [1e-2], "hidden": [4], "folds": 2, "group": "film"},
}
TEXTS = ["a great film", "terrible and dull", "", "no such words: xyzzy 映画"]


def main() -> None:
    """Relative paths, so that nothing in the files names the folder where they were made."""
    write_encoder(Path("encoder"))
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        good = i % 3 == 0
        words = [*rng.choice(WORDS, 6).tolist(), "great" if good else "terrible", str(i)]
        topics = [name for name, there in (("war", i % 2), ("love", i % 5 == 0)) if there]
        rows.append({
            "text": " ".join(words), "label": "positive" if good else "negative", "topics": topics,
            "stars": str(4.5 if good else i % 3), "film": f"film {i // 4}", "id": f"r{i}",
        })  # fmt: skip
    table = Path("table.jsonl")
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    extract(
        table, "cache.h5", model="encoder", labels=["label", "topics", "stars"], id="id", keep=["film"],
        pooling=("cls", "mean"), max_length=32, dtype="float32", device="cpu",
    )  # fmt: skip
    for name, options in RUNS.items():
        train_head("cache.h5", Path("runs") / name, epochs=2, seed=[0], engine="torch", device="cpu", **options)
    for kind in ("exact", "hnsw"):
        index_cache("cache.h5", f"{kind}.index", kind=kind, pooling="mean")
    with open_cache("cache.h5") as cache:
        save_map(default_map_path("cache.h5"), make_map(cache), cache)
    audit_cache("cache.h5", output="runs/classification/audit.csv", label="label", engine="torch", device="cpu", top=3)
    found = {name: answers(Path("runs") / name) for name in RUNS}
    Path("expected.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def write_encoder(folder: Path) -> None:
    """A BERT of one layer, 16 wide."""
    folder.mkdir()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(
        vocab_size=write_tokenizer(folder, 32), max_position_embeddings=32, initializer_range=0.2, **sizes
    )
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder)


def answers(run: Path) -> list[dict]:
    """What the run says of TEXTS."""
    return [one.to_dict() for one in ec.Classifier.load(run, device="cpu").predict(TEXTS)]


if __name__ == "__main__":
    main()
