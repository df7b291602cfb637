"""Safetensors files: errors of the disk while one is written come as OSError, as for any other file."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedcache.common.durable import replacing


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
