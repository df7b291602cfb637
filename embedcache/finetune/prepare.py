"""From what was asked to what is trained: encoder, states, column, starting heads, configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from embedcache.cache import Cache
from embedcache.common.progress import Tell
from embedcache.common.times import Times
from embedcache.encoder.encoder import Encoder
from embedcache.encoder.hardware import resolve_device
from embedcache.encoder.load_again import encoder_of, refuse_imported
from embedcache.encoder.poolings import MODEL
from embedcache.errors import EmbedcacheError
from embedcache.finetune.bench import Bench
from embedcache.finetune.compute import faster_compute
from embedcache.finetune.config import Config, Way, make_configs
from embedcache.finetune.native_layers import NativeLayers
from embedcache.finetune.outcome import TunedColumn
from embedcache.finetune.start import Start, load_start, pooling_of, train_start
from embedcache.finetune.top import first_alone
from embedcache.finetune.trainer import TunedTrainer
from embedcache.heads.kinds.option import Tasks
from embedcache.runs.asked import check_choice, label_names
from embedcache.runs.column import Column, Plan
from embedcache.runs.recipes import Recipe
from embedcache.runs.sides import Dealing, group_column
from embedcache.runs.trainer import TrainerOptions


@dataclass(frozen=True)
class AskedTuning:
    """The arguments of finetune, checked as far as they can be without the cache."""

    run: Path
    ways: list[Way]
    given: Mapping[str, list[Any]]
    settings: Recipe
    tasks: Tasks
    dealing: Dealing
    choose: str
    label: str | None
    group: str | None
    folds: int | None
    from_run: str | Path | None
    pooling: Sequence[str] | None
    options: TrainerOptions
    model: str | Path | None
    trust_remote_code: bool
    checkpointing: bool
    accumulate: int
    alpha: float | None
    targets: tuple[str, ...]
    tell: Tell


def prepare(cache: Cache, asked: AskedTuning, times: Times) -> TunedTrainer:
    """Everything that the training needs.

    Raises:
        EmbedcacheError: labels, states, an encoder or a start that cannot be used.
    """
    with times.of("reading"):
        names = label_names(cache, asked.label, asked.run, asked.tasks)
        if len(names) > 1:
            raise EmbedcacheError(f"--label {','.join(names)}: finetune trains layers for one column: name one")
        _check_cache(cache)
        group = group_column(cache, asked.dealing, asked.group, names)
        deep = any(way.depth is not None for way in asked.ways)
        stored = cache.token_states() if deep else None
        poolings = _poolings(cache, asked, names[0])
        plan = Plan(
            "default", asked.settings, asked.settings.specs(), asked.tasks, poolings[0], -1, group, asked.folds,
            asked.dealing, asked.choose,
        )  # fmt: skip
        column = TunedColumn(cache, names[0], plan)
        check_choice([column], asked.choose.replace("_", "-"), asked.choose)
        encoder = _load_encoder(cache, asked, poolings)
        if asked.options.threads:
            torch.set_num_threads(asked.options.threads)
        device = resolve_device(asked.options.device)
        bench = Bench(cache, encoder, stored, device, asked.checkpointing, asked.alpha, asked.targets, asked.accumulate)
        for way in asked.ways:
            bench.check_depth(way)
    by_way = {way: _poolings_of(way, poolings, asked, cache, encoder) for way in asked.ways}
    with times.of("starting heads"):
        used = dict.fromkeys(one for some in by_way.values() for one in some)
        starts = {name: _start(cache, names[0], replace(plan, pooling=name), asked) for name in used}
    specs = {name: start.whole.spec for name, start in starts.items()}
    configs = make_configs(asked.ways, by_way, asked.given, specs)
    plan = replace(plan, specs=[config.spec for config in configs])
    column.plan = plan
    native = _native(asked, bench, configs)
    trainer = TunedTrainer(column, plan, asked.options, asked.run, asked.tell, configs, starts, bench, native)
    column.trainer = trainer
    if any(way.depth is None for way in asked.ways) and (hint := faster_compute(asked.options.compute, device)):
        asked.tell(hint)
    return trainer


def _native(asked: AskedTuning, bench: Bench, configs: Sequence[Config]) -> NativeLayers | None:
    """The native engine, where it may be used. Raises EmbedcacheError where it is asked for what it cannot train."""
    options = asked.options
    if options.engine == "torch":
        return None
    choose = "loss" if asked.choose == "r2" else asked.choose
    native = NativeLayers(bench, options.early_stop, choose, options.computed, options.threads)
    for config in configs if options.engine == "native" else ():
        if why := native.why_not(config.way, config.pooling):
            raise EmbedcacheError(
                f"--engine native cannot train --train {config.way.text} --pooling {config.pooling}: {why}; use auto "
                "or torch"
            )
    return native


def _check_cache(cache: Cache) -> None:
    refuse_imported(cache.encoder, str(cache.path))
    if "tuned" in cache.encoder["identity"]:
        raise EmbedcacheError(
            f"{cache.path} was made with a tuned run, {cache.encoder['source']}; finetune starts from a base: use a "
            "cache of that"
        )
    if cache.encoder["identity"].get("chunk"):
        raise EmbedcacheError(
            f"{cache.path} was made with --chunk, and finetune reads the first --max-length tokens of a text alone: "
            "run extract without --chunk into a new file"
        )


def _load_encoder(cache: Cache, asked: AskedTuning, poolings: Sequence[str]) -> Encoder:
    """The cache's encoder by its content, in float32."""
    about = {**cache.encoder, "identity": {**cache.encoder["identity"], "compute_dtype": "float32"}}
    with_model = [MODEL] if MODEL in poolings or MODEL in cache.poolings else []
    encoder = encoder_of(
        about, str(cache.path), *with_model, model=asked.model, has_option=True, device="cpu",
        trust_remote_code=asked.trust_remote_code,
    )  # fmt: skip
    if encoder.kernel == "static":
        raise EmbedcacheError(f"{encoder.source} is a static model: it has no layers to train; use train-head")
    if encoder.sees_padding:
        raise EmbedcacheError(
            f"{encoder.source}: rows of this architecture see the padding beside them, so they cannot be trained in "
            "batches; use train-head"
        )
    return encoder


def _poolings(cache: Cache, asked: AskedTuning, label: str) -> list[str]:
    """Those that were asked for, that of ``--from``, or the cache's preferred one; each is in the cache."""
    known = [name for name, layer in cache.outputs if layer == -1]
    found = None if asked.from_run is None else pooling_of(asked.from_run, label)
    names = list(asked.pooling) if asked.pooling is not None else [found or cache.preferred(-1)]
    if found is not None and found not in names:
        raise EmbedcacheError(
            f"--from {asked.from_run}: its heads read {found} vectors: name {found} with --pooling, too, or leave "
            "--pooling out"
        )
    for name in names:
        if name not in known:
            raise EmbedcacheError(
                f"{cache.path} has no {name} vectors of the last layer, only {', '.join(known)}: run extract with "
                f"--pooling {name} to add them"
            )
    return names


def _poolings_of(way: Way, poolings: Sequence[str], asked: AskedTuning, cache: Cache, encoder: Encoder) -> list[str]:
    """For the last layer also cls, whose row alone is then computed, unless the poolings were named."""
    if asked.pooling is not None or way.text != "last" or "cls" in poolings or ("cls", -1) not in cache.outputs:
        return list(poolings)
    return [*poolings, "cls"] if first_alone(encoder.model, "cls") else list(poolings)


def _start(cache: Cache, label: str, plan: Plan, asked: AskedTuning) -> Start:
    """That of ``--from``, for the vectors that its head reads; for others one is trained."""
    column = Column(cache, label, plan)
    if asked.from_run is not None and plan.pooling == pooling_of(asked.from_run, label):
        return load_start(asked.from_run, column)
    return train_start(column, plan, asked.options, asked.run, asked.tell)
