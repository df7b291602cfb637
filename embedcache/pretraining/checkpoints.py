"""What a killed command leaves beside its output, and whether the next one can go on from there."""

from __future__ import annotations

import json
import shutil
from hashlib import blake2b
from pathlib import Path

import msgspec

from embedcache.common.checked import SchemaError, conform, read_json
from embedcache.common.durable import sync_tree
from embedcache.errors import EmbedcacheError

ABOUT, WHOLE = "adapt.json", "whole"


class Begun(msgspec.Struct):
    """What is being done: a digest of texts, model and options; what was measured before the training began."""

    key: str
    perplexity_before: float


class Checkpoints:
    """The hidden folder ``.MODEL.adapt``, in which the Trainer's checkpoints lie.

    A checkpoint counts once it has the file WHOLE, which is written after all of it is on the disk.
    """

    def __init__(self, output: Path, key: str) -> None:
        """key: what decides the result."""
        output = output.absolute()
        self.folder = output.with_name(f".{output.name}.adapt")
        self._output, self._key = output, blake2b(key.encode(), digest_size=16).hexdigest()

    @property
    def exist(self) -> bool:
        return self.folder.exists()

    def begin(self, resume: bool) -> float | None:
        """The perplexity that an earlier command measured before it trained; None where this is a new beginning.

        Raises:
            EmbedcacheError: ``resume``, but what is there was begun with other texts, another model or other options.
        """
        about = self._about() if resume else None
        if about is not None and about.key != self._key:
            raise EmbedcacheError(
                f"--resume: what was begun for {self._output} had other texts, another model or other options: repeat "
                "these, or begin anew without --resume"
            )
        if about is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return None if about is None else about.perplexity_before

    def started(self, perplexity: float) -> None:
        """Keep what was measured."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ABOUT
        path.write_text(json.dumps({"key": self._key, "perplexity_before": perplexity}), encoding="utf-8")
        sync_tree(self.folder)

    def finished(self, checkpoint: Path) -> None:
        """Call once all files of a checkpoint are written."""
        sync_tree(checkpoint)
        (checkpoint / WHOLE).touch()
        sync_tree(checkpoint)

    def last(self) -> Path | None:
        """The last whole checkpoint; those that a kill cut short are removed."""
        found: dict[int, Path] = {}
        for path in self.folder.glob("checkpoint-*"):
            if (path / WHOLE).exists():
                found[int(path.name.rpartition("-")[2])] = path
            else:
                shutil.rmtree(path, ignore_errors=True)
        return found[max(found)] if found else None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _about(self) -> Begun | None:
        try:
            return conform(read_json(self.folder / ABOUT), Begun)
        except (OSError, SchemaError):
            return None
