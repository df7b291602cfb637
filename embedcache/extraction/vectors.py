"""Which vectors a pass makes: poolings, layers, prompt and length, as asked or as the model or the cache has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcache.cache.file import Cache
from embedcache.cache.layout import Output
from embedcache.encoder.adapter_files import tasks_of
from embedcache.encoder.folder import find_root, model_config, transformer_folder
from embedcache.encoder.kinds import ENCODER, STATIC, kind_of
from embedcache.encoder.poolings import MODEL, POOLINGS, find_pooling
from embedcache.encoder.prescription import ANY_LENGTH, Prescription, in_words, read_prescription, read_prompts
from embedcache.errors import EmbedcacheError

AUTO = "auto"
MAX_LENGTH = 250  # tokens, where neither the user, the cache nor the model says otherwise


@dataclass(frozen=True)
class AskedVectors:
    """What the user asked for. None and "auto" mean: as the cache has it, else as the model's authors prescribe."""

    pooling: str | Sequence[str] = AUTO
    layers: int | Sequence[int] = (-1,)
    prompt: str | None = None
    dims: int | None = None
    force_dims: bool = False
    max_length: int | None = None
    chunk: bool | None = None
    task: str | None = None

    def poolings(self) -> list[str]:
        """The names, ``auto`` among them.

        Raises:
            EmbedcacheError: no such pooling, or none at all.
        """
        names = [self.pooling] if isinstance(self.pooling, str) else list(self.pooling)
        if not names:
            raise EmbedcacheError(f"no pooling to store: choose from {', '.join((AUTO, *POOLINGS, MODEL))}")
        for name in names:
            if name not in (AUTO, MODEL):
                find_pooling(name)
        if self.dims is not None and self.dims < 1:
            raise EmbedcacheError(f"dims {self.dims}: keep at least one dimension")
        return names

    def numbers(self) -> list[int]:
        """The layer numbers. Raises EmbedcacheError where there are none."""
        numbers = [self.layers] if isinstance(self.layers, int) else list(self.layers)
        if not numbers:
            raise EmbedcacheError("no layer to store: name one, -1 is the last")
        return numbers


@dataclass(frozen=True)
class Chosen:
    """What a pass makes.

    Attributes:
        outputs: the (pooling, layer) pairs that were asked for.
        settings: arguments of ``Encoder.load``: ``max_length``, ``prompt``, ``lower_case``, ``chunk``, ``task`` and
            ``model``.
        notes: what was chosen and why, a sentence each.
    """

    outputs: list[Output]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def choose(model: str, asked: AskedVectors, old: Cache | None, trust_remote_code: bool) -> Chosen:
    """Decide what to make with a model, for a new cache or for one to continue.

    Args:
        model: folder or hub name.
        asked: what the user asked for.
        old: the cache to continue, or None.
        trust_remote_code: whether the model's own Python code may be downloaded.

    Raises:
        EmbedcacheError: the model is not found; its prescribed vectors are asked for but not supported; there is no
            such prompt, layer or width.
    """
    names, numbers = asked.poolings(), asked.numbers()
    if MODEL in names and -1 not in numbers:
        raise EmbedcacheError(
            "the vectors called model exist for the last layer only: leave --layers out, or name another --pooling"
        )
    root, name = find_root(model, trust_remote_code)[0], model
    known = {} if old is None else old.encoder["identity"]
    kept: dict[str, Any] | None = None if old is None else old.encoder.get(MODEL)
    says: Prescription | None = None
    notes: list[str] = []
    if MODEL in names or kept is not None or asked.dims or (AUTO in names and old is None):
        says = read_prescription(root, name)
    if says is None and (MODEL in names or asked.dims):
        raise EmbedcacheError(f"{name} has no modules.json to say what its vectors are: use --pooling mean, "
                              "cls, max or last" + (", and no --dims" if asked.dims else ""))  # fmt: skip
    if AUTO in names:
        auto, notes = _auto(says, root, name, -1 in numbers) if old is None else (_of_cache(old, numbers), [])
        names = list(dict.fromkeys(one for each in names for one in (auto if each == AUTO else [each])))
    new = says is not None and MODEL in names and kept is None
    if asked.dims and MODEL not in names and kept is None:
        raise EmbedcacheError("--dims cuts the vectors called model, which were not asked for: add --pooling model")
    about = kept
    if says is not None and (new or kept is not None):
        dims = asked.dims or (kept or {}).get("dims")
        if asked.dims:
            _check_dims(says, asked, name)
        about = says.about(dims)
    settings = {
        "max_length": asked.max_length or known.get("max_length"),
        "prompt": _prompt(asked.prompt, root, name),
        "lower_case": known.get("lower_case", False),
        "chunk": known.get("chunk", False) if asked.chunk is None else asked.chunk,
        "task": known.get("task", "") if asked.task is None else asked.task,
        MODEL: about,
    }
    if new and says is not None:
        settings["max_length"] = asked.max_length or says.max_length
        settings["prompt"] = says.prompt if settings["prompt"] is None else settings["prompt"]
        settings["lower_case"] = says.lower_case
        notes.append(f"model is {in_words(says.about(asked.dims))}, by {', '.join(says.read)} of {name}"
                     f"{_before(settings)}")  # fmt: skip
    settings["prompt"] = known.get("prompt", "") if settings["prompt"] is None else settings["prompt"]
    settings["max_length"] = settings["max_length"] or MAX_LENGTH
    if not settings["task"] and (tasks := tasks_of(transformer_folder(root))):
        notes.append(f"{name} has adapters for the tasks {', '.join(tasks)}; none is used: name one with --task")
    return Chosen(_outputs(names, numbers), settings, notes)


def _auto(says: Prescription | None, root: Path, name: str, last: bool) -> tuple[list[str], list[str]]:
    """(poolings, notes) for a new cache. ``last``: whether the last layer is stored, which ``model`` needs."""
    kind = kind_of(model_config(transformer_folder(root)))
    if says is not None and kind is STATIC:
        return [MODEL], []
    if says is not None:
        return [MODEL, kind.pooling] if last else [kind.pooling], []
    as_such = "" if kind is ENCODER else f"it is {kind.name}, and "
    hint = "; for sentence similarity --pooling mean often works better" if kind is ENCODER else ""
    return [kind.pooling], [
        f"stored {kind.pooling} ({kind.why}): {as_such}{name} has no modules.json to say which vector its authors "
        f"use{hint}"
    ]


def _of_cache(old: Cache, numbers: Sequence[int]) -> list[str]:
    """What ``auto`` adds to a cache: nothing for the last layer; its own poolings for any other layer."""
    return old.poolings if list(numbers) != [-1] else []


def _outputs(names: Sequence[str], numbers: Sequence[int]) -> list[Output]:
    """Every pooling of every layer; ``model`` of the last only."""
    every = [(name, layer) for name in names for layer in numbers if name != MODEL or layer == -1]
    return list(dict.fromkeys(every))


def _prompt(asked: str | None, root: Path, name: str) -> str | None:
    """The text of the prompt, which was given by its name or as the text itself; None where there is none."""
    if asked is None:
        return None
    prompts, _ = read_prompts(root)
    if asked in prompts:
        return prompts[asked]
    if re.fullmatch(r"[\w-]+", asked):
        known = f"it has {', '.join(prompts)}" if prompts else "it has none"
        own = f"to pass a prompt's text, end it with a space or punctuation, such as {asked + ': '!r}"
        raise EmbedcacheError(f"{name} has no prompt {asked!r}; {known}; {own}")
    return asked


def _check_dims(says: Prescription, asked: AskedVectors, name: str) -> None:
    if asked.force_dims or says.matryoshka is None or asked.dims in says.matryoshka:
        return
    declared = f"declares {', '.join(map(str, says.matryoshka))}" if says.matryoshka else "declares no dimensions"
    raise EmbedcacheError(
        f"--dims {asked.dims}: {name} {declared} to which its vectors may be cut (truncate_dim, "
        "matryoshka_dimensions); cutting the vectors of other models loses much: pass --force-dims to do it anyway"
    )


def _before(settings: dict[str, Any]) -> str:
    prompt = f", after the prompt {settings['prompt']!r}" if settings["prompt"] else ""
    lowered = ", in lower case" if settings["lower_case"] else ""
    longest = settings["max_length"] or MAX_LENGTH
    if settings["chunk"]:
        return f"{prompt}{lowered}; texts in chunks of up to {longest} tokens"
    return f"{prompt}{lowered}; texts of " + ("any length" if longest == ANY_LENGTH else f"up to {longest} tokens")
