"""Safetensors files: errors of the disk while one is written come as OSError, as for any other file.

A model's weights are read in float32, whatever they are stored in.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedcache.common.durable import replacing
from embedcache.errors import EmbedcacheError

FEW_TENSORS = 1 << 16  # bytes of a header


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write a file whole or not at all, of the mode that the umask gives.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with replacing(path) as new:
            new.touch()
            mode = (path if path.exists() else new).stat().st_mode
            save_file(dict(tensors), str(new), metadata)
            new.chmod(mode)  # safetensors gives its files to their owner alone
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number) if found else str(error), str(path)) from error


def tensor_names(path: Path) -> set[str]:
    """The names in a file's header; empty where it is damaged, or longer than that of a few tensors."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size < FEW_TENSORS else b""
    try:
        return set(json.loads(header)) - {"__metadata__"}
    except (ValueError, RecursionError, TypeError):
        return set()


def load_float32(path: Path, name: str) -> dict[str, np.ndarray]:
    """All arrays of a file in float32. ``name``: of the model, for messages.

    Raises:
        EmbedcacheError: it is damaged.
    """
    try:
        try:
            from safetensors.numpy import load_file

            found = load_file(path)
        except (TypeError, KeyError):  # NumPy has no bfloat16
            from safetensors import torch

            found = {key: weight.float().numpy() for key, weight in torch.load_file(path).items()}
        return {key: np.ascontiguousarray(weight, np.float32) for key, weight in found.items()}
    except Exception as error:  # the library has no exception type of its own that all versions share
        reason = " ".join(str(error).split())[:200]
        where = f"{path.parent.name}/{path.name}"
        raise EmbedcacheError(f"{name}: {where} is damaged ({reason}): copy the model again") from error
