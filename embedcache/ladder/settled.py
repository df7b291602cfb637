"""What was asked of a ladder, checked as far as it can be before anything runs: input, encoders, rungs, folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedcache.cache import Cache, open_cache
from embedcache.cache.state_files import StateFiles, index_path
from embedcache.common.checked import SchemaError, read_json
from embedcache.common.progress import Tell
from embedcache.common.whole_file import whole_file
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.heads.kinds.option import is_number, task_of
from embedcache.labelling.opened import NONE
from embedcache.ladder.rows import AskedRows, CommonRows
from embedcache.ladder.rungs import ZERO_SHOT, Rung, read_rung
from embedcache.ladder.speed import MachineSpeed
from embedcache.prompting.labels import read_labels

SETTINGS = "settings.json"


@dataclass
class NamedEncoder:
    """One of --model, or the encoder of a cache.

    Attributes:
        name: in tables and as a folder. source: its folder or hub name; None: where the cache says.
        cache: the file. made: whether the ladder makes it.
    """

    name: str
    source: str | None
    cache: Path
    made: bool


@dataclass
class Settled:
    """A ladder that can begin."""

    input: str
    folder: Path
    encoders: list[NamedEncoder]
    rungs: list[Rung]
    named: bool  # whether --rungs was given: what does not suit is then refused, not left out
    rows: AskedRows
    seeds: tuple[int, ...]  # of the training; the first deals the rows, too
    labels: str | None
    text: str
    max_length: int | None
    device: str
    compute: str
    trust_remote_code: bool
    resume: bool
    reading: dict[str, Any]
    tell: Tell
    notes: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Layers whose token states the rungs read."""
        return max(rung.depth for rung in self.rungs)

    @property
    def several(self) -> bool:
        return len(self.encoders) > 1

    def leave_out(self, why: Callable[[Rung], str | None]) -> None:
        """The rungs that do not suit go, with a note. Raises EmbedcacheError where they were named."""
        for rung in list(self.rungs):
            if (reason := why(rung)) is None:
                continue
            if self.named:
                raise EmbedcacheError(f"--rungs {rung.name}: {reason}")
            self.rungs.remove(rung)
            self.notes.append(f"{rung.name} is left out: {reason}")

    def check_states(self, cache: Cache) -> None:
        """Of a cache that was there: its token states are deep enough."""
        there = 0
        if index_path(Path(cache.path)).exists():
            there = StateFiles(Path(cache.path)).about.layers
        self.leave_out(
            lambda rung: (
                f"{cache.path} keeps token states of {there} layers: extract --tokens {rung.depth} adds them"
                if rung.depth > there
                else None
            )
        )

    def check_layers(self, encoder: NamedEncoder, known: MachineSpeed) -> None:
        """The encoder has layers, and as many as are to be trained."""

        def why(rung: Rung) -> str | None:
            if rung.way is not None and known.train is None:
                return f"{encoder.name} is a static model, without layers to train"
            return f"{encoder.name} has {known.layers} layers" if rung.depth > known.layers else None

        self.leave_out(why)

    def check_kind(self, rows: CommonRows) -> None:
        """What is learned suits the rungs, and the labels of zero-shot are its classes. Raises EmbedcacheError."""
        data = rows.data
        if not kind_of(data.kind).exclusive:
            self.leave_out(
                lambda rung: (
                    f"it gives one label a row, and {data.label!r} does not hold that"
                    if rung.name == ZERO_SHOT
                    else None
                )
            )
        if not any(rung.name == ZERO_SHOT for rung in self.rungs):
            return
        if self.labels is None:
            self.notes.append("zero-shot reads the classes as they are called; --labels describes them")
            return
        names = {one.name for one in read_labels(self.labels)}
        if names != set(data.classes):
            other = sorted(names ^ set(data.classes))[:5]
            raise EmbedcacheError(
                f"--labels must describe the classes of {data.label!r}, each once: {', '.join(other)} stand on one "
                "side alone"
            )

    def extract_options(self) -> dict[str, Any]:
        """Of the pass over a table: the columns and states that the rungs read."""
        asked = self.rows
        number = is_number(task_of(asked.task, asked.label or ""))
        if number and asked.label is None:
            raise EmbedcacheError("--task regression of a table: name the column of numbers with --label")
        keep = [name for name in (asked.label if number else None, asked.group) if name is not None]
        labels: Any = [] if number else asked.label
        return {
            "text": self.text, "labels": labels, "keep": keep, "tokens": self.depth or None, "device": self.device,
            "max_length": self.max_length, "trust_remote_code": self.trust_remote_code,
        }  # fmt: skip


def name_encoders(input: str, folder: Path, models: Sequence[str], cached: bool) -> list[NamedEncoder]:
    """The encoders, each with a name of its own. Raises EmbedcacheError where there is none, or too many."""
    if cached:
        if len(models) > 1:
            raise EmbedcacheError(
                f"--model {','.join(models)}: {input} is the cache of one encoder; give a table for several"
            )
        with open_cache(input) as cache:
            source = str(cache.encoder["source"])
        return [NamedEncoder(_slug(source), models[0] if models else None, Path(input), False)]
    if not models:
        raise EmbedcacheError(f"{input} is a table: name one encoder or several with --model")
    if len(set(models)) < len(models):
        raise EmbedcacheError(f"--model {','.join(models)}: an encoder is named twice")
    names: list[str] = []
    for model in models:
        name = _slug(model)
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return [
        NamedEncoder(name, model, folder / name / "cache.h5", True) for name, model in zip(names, models, strict=True)
    ]


def _slug(source: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name).strip("-.")[:60] or "encoder"


def open_folder(settled: Settled) -> None:
    """Make the folder, or go on with it: its settings must be the same.

    Raises:
        EmbedcacheError: it holds a ladder and resume is off, one with other settings, or something else.
    """
    folder, path = settled.folder, settled.folder / SETTINGS
    own = _settings(settled)
    if path.exists() and (settled.resume or any(folder.rglob("*.npy")) or any(folder.rglob("*.h5"))):
        if not settled.resume:
            raise EmbedcacheError(f"{folder} holds a ladder: --resume goes on with it, or name another -o")
        try:
            before: Any = {"journal": NONE, "compute": "auto", **read_json(path)}
            other = [name for name, value in own.items() if before.get(name) != value]
        except (OSError, SchemaError, TypeError):
            raise EmbedcacheError(f"{path} cannot be read: name another -o") from None
        if other:
            raise EmbedcacheError(
                f"{folder} was begun with another {', '.join(other)}: resume with the same, or name another -o"
            )
        return
    if folder.is_file() or (folder.is_dir() and any(one.name[:1] != "." and one != path for one in folder.iterdir())):
        raise EmbedcacheError(f"{folder} is there and is no ladder: name a new or an empty folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            json.dump(own, file, indent=1)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {folder}: {error.strerror or error}") from None


def _settings(settled: Settled) -> dict[str, Any]:
    """What all rungs of a folder share; the rungs and encoders themselves may grow."""
    given = settled.input
    if settled.encoders[0].made:
        there = Path(given).stat() if Path(given).exists() else None
        content: Any = None if there is None else [there.st_size, there.st_mtime_ns]
    else:
        with open_cache(given) as cache:
            content = cache.fingerprint
    own = {"input": str(Path(given).resolve()) if Path(given).exists() else given, "input's content": content}
    return {
        **own,
        **asdict(settled.rows),
        "labels": settled.labels,
        "journal": settled.rows.labels,
        "text": settled.text,
        "max_length": settled.max_length,
        "compute": settled.compute,
    }


def settle(
    input: str, folder: Path, rungs: Sequence[str] | None, default: Sequence[str], models: Sequence[str], cached: bool,
    **more: Any,
) -> Settled:  # fmt: skip
    """Check what can be checked at once. more: of Settled.

    Raises:
        EmbedcacheError: rungs, labels or encoders that cannot be used.
    """
    names = list(default if rungs is None else rungs)
    settled = Settled(
        input=input,
        folder=folder,
        encoders=name_encoders(input, folder, models, cached),
        rungs=[read_rung(name) for name in dict.fromkeys(["majority", *names])],
        named=rungs is not None,
        **more,
    )
    if settled.labels is not None:
        read_labels(settled.labels)
    settled.leave_out(Rung.lacking)
    return settled
