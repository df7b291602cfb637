"""The part of an encoder that finetune trained, applied to its base when that is loaded: one file next to a run's head.

The file, ``tuned.safetensors``, holds only the trained tensors, and what they belong to. A folder with this file can be
loaded like any model folder: configuration, tokenizer and all other weights come from the base.

Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from embedcache.common.checked import SchemaError, conform, parse_json
from embedcache.common.digest import file_sha256
from embedcache.common.tensors import save_tensors
from embedcache.errors import EmbedcacheError

FILE = "tuned.safetensors"
FORMAT = "embedcache-tuned"
VERSION = 1
BASE = ("architecture", "config", "weights", "tokenizer", "adapter")  # the part of its identity that the tensors need
LORA_A, LORA_B = ".lora_A", ".lora_B"  # suffixes of a weight's name
ADAPTER = ".adapter."  # between a linear layer's name and those of its bottleneck's weights


class Base(msgspec.Struct):
    source: str
    identity: dict[str, Any]


class TunedHeader(msgspec.Struct):
    """The file's JSON.

    Attributes:
        version: of the format.
        base: what the tensors belong to.
        kind: how they are applied to the base's.
        scale: of LoRA's product.
    """

    version: Annotated[int, Meta(ge=1)]
    base: Base
    kind: Literal["tensors", "lora", "adapter"] = "tensors"
    scale: float = 1.0


@dataclass(frozen=True)
class Tuned:
    """The file of one folder, of which the header has been read."""

    path: Path
    header: TunedHeader
    digest: str

    @property
    def base(self) -> str:
        """Where the base was."""
        return self.header.base.source

    def identity(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The identity of the tuned encoder, from that of the base that is there now.

        Raises:
            EmbedcacheError: this is another base.
        """
        was, changed = self.header.base.identity, []
        for key in BASE:
            old, new = was.get(key), base.get(key)
            if isinstance(old, dict) and isinstance(new, dict):
                changed += [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
            elif old != new:
                changed.append(key)
        if changed:
            raise EmbedcacheError(
                f"the base of {self.path.parent}, {self.base}, is not the one that was tuned: its "
                f"{' and '.join(changed)} changed; restore the old files, or pass the old folder with --model"
            )
        return {**base, "tuned": self.digest}

    def arrays(self) -> dict[str, np.ndarray]:
        """All tensors, float32. Raises EmbedcacheError for a damaged file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            if file_sha256(self.path) != self.digest:
                raise ValueError("it changed while it was read")
            return {name: np.asarray(array, np.float32) for name, array in load_file(self.path).items()}
        except (SafetensorError, ValueError, TypeError, OSError) as error:
            raise _damaged(self.path, error) from None

    def over(self, base: Any) -> dict[str, np.ndarray]:
        """The new values of the weights that change, float32 by name.

        Args:
            base: ``base[name]`` returns a float32 array of the base; only LoRA reads any.

        Raises:
            KeyError: the base has no such weight.
        """
        arrays = self.arrays()
        found = {name: array for name, array in arrays.items() if not name.endswith((LORA_A, LORA_B))}
        for name in (name.removesuffix(LORA_B) for name in arrays if name.endswith(LORA_B)):
            delta = arrays[name + LORA_B].astype(np.float64) @ arrays[name + LORA_A].astype(np.float64)
            found[name] = (np.asarray(base[name], np.float64) + self.header.scale * delta).astype(np.float32)
        return found


def find_tuned(folder: str | Path) -> Tuned | None:
    """The tuned tensors in a folder; None where there are none.

    Raises:
        EmbedcacheError: the file is damaged, or of a later version.
    """
    path = Path(folder).expanduser() / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = conform(parse_json((file.metadata() or {})[FORMAT]), TunedHeader)
        digest = file_sha256(path)
    except (SafetensorError, SchemaError, KeyError, OSError) as error:
        raise _damaged(path, error) from None
    if header.version > VERSION:
        raise EmbedcacheError(f"{path} has version {header.version}, newer than this embedcache reads: upgrade it")
    return Tuned(path.resolve(), header, digest)


def save_tuned(path: Path, tensors: Mapping[str, np.ndarray], base: Mapping[str, Any], **how: Any) -> None:
    """Write the file.

    Args:
        path: where to.
        tensors: what was trained, by name.
        base: "source" and "identity" of the base.
        how: other fields of ``TunedHeader``.

    Raises:
        OSError: it cannot be written.
    """
    kept = {key: base["identity"][key] for key in BASE if key in base["identity"]}
    header = {"version": VERSION, "base": {"source": base["source"], "identity": kept}, **how}
    save_tensors(path, tensors, {FORMAT: json.dumps(header, sort_keys=True)})


def _damaged(path: Path, error: Exception) -> EmbedcacheError:
    return EmbedcacheError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): run finetune again")
