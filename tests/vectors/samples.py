"""The same vectors, texts and labels in every format, for the tests of import."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from tests.conftest import make_reviews

ROWS, DIM = 2300, 12  # three blocks
REVIEWS = [(f"{text} {i}", label) for i, (text, label) in enumerate(make_reviews(ROWS))]
TEXTS, LABELS = [text for text, _ in REVIEWS], [label for _, label in REVIEWS]
IDS = [f"r{i}" for i in range(ROWS)]
VECTORS = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


def columns() -> dict[str, Any]:
    return {"id": IDS, "text": TEXTS, "label": LABELS}


def table(vectors: pa.Array) -> pa.Table:
    return pa.table({**columns(), "embedding": vectors})


def lists() -> list[list[float]]:
    return VECTORS.tolist()


def rows() -> list[dict[str, Any]]:
    known = zip(IDS, TEXTS, LABELS, lists(), strict=True)
    return [dict(zip(("id", "text", "label", "embedding"), one, strict=True)) for one in known]


def fixed() -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), DIM)


def write_jsonl(path: Path, objects: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))


def response(vectors: Sequence[Any], model: str = "text-embedding-3-small") -> dict[str, Any]:
    """An embeddings object of OpenAI's API, its data in no order."""
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(vectors)]
    return {"object": "list", "data": data[::-1], "model": model, "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def batch_line(id: str, vectors: Sequence[Any]) -> dict[str, Any]:
    """A line of OpenAI's batch output."""
    answer = {"status_code": 200, "request_id": "x", "body": response(vectors)}
    return {"id": f"batch_req_{id}", "custom_id": id, "response": answer, "error": None}


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["embedding"], file["id"], file["text"], file["label"] = VECTORS, IDS, TEXTS, LABELS


# What has the texts and labels in the same file.
WRITE: dict[str, Callable[[Path], Any]] = {
    "list.parquet": lambda path: pq.write_table(table(pa.array(lists(), pa.list_(pa.float32()))), path),
    "large.parquet": lambda path: pq.write_table(table(pa.array(lists(), pa.large_list(pa.float32()))), path),
    "fixed.parquet": lambda path: pq.write_table(table(fixed()), path, row_group_size=700),
    "struct.parquet": lambda path: pq.write_table(
        table(pa.StructArray.from_arrays([pa.array(VECTORS[:, i]) for i in range(DIM)], [f"x{i}" for i in range(DIM)])),
        path,
    ),
    "x.arrow": lambda path: feather.write_feather(table(fixed()), path, compression="uncompressed"),
    "x.feather": lambda path: feather.write_feather(table(fixed()), path),
    "x.jsonl": lambda path: write_jsonl(path, rows()),
    "x.json": lambda path: path.write_text(json.dumps(rows())),
    "x.npz": lambda path: np.savez_compressed(path, embedding=VECTORS, id=IDS, text=TEXTS, label=LABELS),
    "x.h5": write_hdf5,
}
# What has vectors alone.
WRITE_ALONE: dict[str, Callable[[Path], Any]] = {
    "x.npy": lambda path: np.save(path, VECTORS),
    "columns.npy": lambda path: np.save(path, np.asfortranarray(VECTORS)),
    "big-endian.npy": lambda path: np.save(path, VECTORS.astype(">f4")),
    "x.safetensors": lambda path: save_file({"vectors": VECTORS}, path),
    "response.json": lambda path: path.write_text(json.dumps(response(lists()))),
    "responses.jsonl": lambda path: write_jsonl(path, [response(lists()[i : i + 100]) for i in range(0, ROWS, 100)]),
    "base64.jsonl": lambda path: write_jsonl(
        path, [response([base64.b64encode(one.tobytes()).decode() for one in VECTORS])]
    ),
}
