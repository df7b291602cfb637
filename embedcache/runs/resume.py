"""Heads that need no second training: those of an interrupted run or of a finished one, known by what made them.

A head depends on its settings, its rows and how it was trained, and on nothing else (docs/engine.md). Its *identity* is
a digest of all that: a head with the same identity is the same to the bit on the CPU engines, so it is kept.
What an interrupted run had finished lies beside its place in one safetensors file, .RUN.unfinished.safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embedcache import __version__
from embedcache.common.checked import SchemaError, conform, parse_json
from embedcache.common.tensors import save_tensors
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import json_number
from embedcache.heads.head import TrainedHead
from embedcache.heads.memory import MakeRoom, WeightRoom, read_weights
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import CHUNK_ROWS, Task
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.schema import LabelsFrom

FORMAT = "embedcache-unfinished"
VERSION = 2  # before, epochs counted from 0: each head has its own version


Found = tuple[dict[str, TrainedHead], list[dict[str, Any] | None]]  # as KeptHeads has them


class Header(msgspec.Struct):
    """What the file's header may hold; each head is checked on its own."""

    version: int
    heads: dict[str, dict[str, Any]]
    labels_from: LabelsFrom | None = None


def task_digest(task: Task, hashes: np.ndarray, about: Mapping[str, Any]) -> str:
    """A digest of what a head learns: which texts in which order, their targets, the scaling, the weights of the loss.

    hashes: uint8 [N, 16] of the texts; with the cache's fingerprint, the pooling and the layer (in about, JSON types)
    they stand for the vectors.
    """
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    for view in (task.train, task.val):
        digest.update(b"side")
        if view is None:
            continue
        for start in range(0, len(view.rows), CHUNK_ROWS):
            rows = view.rows[start : start + CHUNK_ROWS]
            for array in (rows, view.y[rows], hashes[rows]):
                _add(digest, array)
            if view.sample_weight is not None:
                digest.update(b"weight")
                _add(digest, view.sample_weight[rows])
    for array in (task.mean, task.inv_std, task.class_weight, task.target_mean, task.target_std):
        digest.update(b"none") if array is None else _add(digest, array)
    if task.start is not None:
        digest.update(b"start")
        for array in (task.start.known, *task.start.weights.values()):
            _add(digest, array)
    return digest.hexdigest()


def identity(spec: HeadSpec, task: str, training: Mapping[str, Any]) -> str:
    """A digest of one head. task: a task_digest; training (JSON types): batch size, epochs, engine and the like."""
    made_by = {"spec": spec.to_dict(), "task": task, "training": dict(training), "embedcache": __version__}
    if not spec.hidden:
        made_by["start"] = "shares"  # linear probes once started at random
    return hashlib.blake2b(json.dumps(made_by, sort_keys=True).encode(), digest_size=16).hexdigest()


def unfinished_paths(run: str | Path) -> list[Path]:
    """Where the heads of an interrupted run are kept: beside it, or, where its disk is full, among temporary files."""
    path = Path(run).resolve()
    name = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return [
        path.parent / f".{path.name}.unfinished.safetensors",
        Path(tempfile.gettempdir()) / f"embedcache-{name}.unfinished.safetensors",
    ]


def remove_unfinished(run: str | Path) -> None:
    """Once the run is written."""
    for path in unfinished_paths(run):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def save_unfinished(
    run: str | Path, heads: Mapping[str, TrainedHead], labels_from: Mapping[str, Any] | None = None
) -> Path:
    """Keep heads, identity -> head, beside those that are kept already. Raises EmbedcacheError where it cannot.

    labels_from: what lay over the cache's labels, ``Cache.labels_from``.
    The file takes its name once it is whole; until then the old one stands.
    """
    reasons = []
    for path in unfinished_paths(run):
        try:
            return _save_unfinished(path, heads, labels_from)
        except OSError as error:
            reasons.append(f"cannot write {path}: {error.strerror or error}")
    raise EmbedcacheError(f"{'; '.join(reasons)}; the trained heads are lost")


def _save_unfinished(path: Path, heads: Mapping[str, TrainedHead], labels_from: Mapping[str, Any] | None) -> Path:
    with suppress(EmbedcacheError):  # a damaged file has nothing to lose
        heads = {**_load_unfinished(path, lambda key: key not in heads)[0], **heads}
    tensors, about = {}, {}
    for key, head in heads.items():
        for name, values in (*head.weights.items(), *_history_arrays(head).items()):
            tensors[f"{key}/{name}"] = values
        about[key] = {**head.metadata(), "history": list(head.history), "classes": None}
        about[key]["digest"] = _digest_of(head.weights)
    header = {"format": FORMAT, "version": VERSION, "heads": about, "labels_from": recorded_labels(labels_from)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, {FORMAT: json.dumps(header, allow_nan=False)})
    return path


@dataclass
class KeptHeads:
    """What resuming found: identity -> head, and what a person should know about it.

    labels_from: what lay over the cache's labels in each training of which something is there.
    """

    heads: dict[str, TrainedHead] = field(default_factory=dict)
    labels_from: list[dict[str, Any] | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_heads(run: str | Path, wanted: Collection[str]) -> KeptHeads:
    """The wanted heads, by identity, in what an interrupted training of ``run`` left and in ``run`` itself.

    Where they are too many for memory, their weights are put into a file without a name beside the run.
    """
    kept = KeptHeads()
    path = Path(run).absolute()
    folder = next(folder for folder in path.parents if folder.is_dir())

    def room(count: int, heads: int) -> WeightRoom:
        found = WeightRoom(count, heads, folder)
        if found.note:
            kept.notes.append(f"--resume: {found.note}")
        return found

    reads: list[Callable[[], Found]] = [partial(_from_run, Path(run), wanted, room)]
    reads += [partial(_load_unfinished, path, wanted.__contains__, room) for path in unfinished_paths(run)]
    for read in reads:
        try:
            heads, labels_from = read()
            kept.heads |= heads
            kept.labels_from += labels_from
        except EmbedcacheError as error:
            kept.notes.append(f"--resume cannot use what is there: {error}")
    return kept


def _from_run(run: Path, wanted: Collection[str], room: MakeRoom) -> Found:
    if not run.exists():
        return {}, []
    found: dict[str, TrainedHead] = {}
    loaded = load_run(run)
    for one in loaded.columns.values():
        identities = one.info.get("identities", {})  # the first runs had none
        names = {name: key for name, key in identities.items() if key in wanted and name in one.info["heads"]}
        if names:
            found |= {names[name]: head for name, head in load_heads(one.path, names, room).items()}
    return found, [loaded.info.get("labels_from")]


def recorded_labels(labels_from: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What of ``Cache.labels_from`` tells it from another."""
    return None if labels_from is None else {name: labels_from[name] for name in LabelsFrom.__struct_fields__}


def _load_unfinished(path: Path, wanted: Callable[[str], bool], room: MakeRoom = WeightRoom) -> Found:
    """The wanted heads of such a file, by identity; a head whose weights are damaged is left out. And its labels."""
    from safetensors import SafetensorError, safe_open

    heads = {}
    try:
        if sys.platform != "win32" and path.stat().st_uid != os.getuid():
            raise SchemaError("it belongs to somebody else")
        with safe_open(str(path), framework="numpy") as file:
            header = conform(parse_json((file.metadata() or {})[FORMAT]), Header)
            if not 1 <= header.version <= VERSION:
                raise SchemaError(f"version {header.version}")
            keys = {key: about for key, about in header.heads.items() if wanted(key)}
            hidden = {key: about["spec"]["hidden"] for key, about in keys.items()}
            for key, weights in read_weights(file, hidden, room):
                about = keys[key]
                if _digest_of(weights) != about["digest"]:
                    continue
                scores = {name: file.get_tensor(f"{key}/history/{name}") for name in about["history"]}
                history = {name: list(map(json_number, values)) for name, values in scores.items()}
                heads[key] = TrainedHead.from_metadata({**about, "history": history}, weights)
    except FileNotFoundError:
        return {}, []
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise EmbedcacheError(f"{path} is damaged or of another version ({error}); remove it") from None
    return heads, [None if header.labels_from is None else msgspec.to_builtins(header.labels_from)]


def _history_arrays(head: TrainedHead) -> dict[str, np.ndarray]:
    return {f"history/{name}": np.array(values, np.float64) for name, values in head.history.items()}


def _digest_of(weights: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        _add(digest, weights[name])
    return digest.hexdigest()


def _add(digest: Any, array: np.ndarray) -> None:
    """Type, shape and bytes."""
    array = np.ascontiguousarray(array)
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.data if array.size else b"")
