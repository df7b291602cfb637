"""What becomes of a finetune: its column judged by the tuned layers, its report, its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedcache.common.digest import file_sha256
from embedcache.common.progress import Progress
from embedcache.common.times import Times
from embedcache.encoder.tuned import FILE, save_tuned
from embedcache.errors import EmbedcacheError
from embedcache.finetune.head import TunedHead
from embedcache.heads.head import TrainedHead
from embedcache.runs.column import Column, ColumnReport
from embedcache.runs.leaderboard import Entry
from embedcache.runs.mistakes import Judged
from embedcache.runs.outcome import HeadReport, Job, Result, column_files
from embedcache.runs.scores import title
from embedcache.runs.trainer import Bank
from embedcache.runs.write_folder import RunFiles

if TYPE_CHECKING:
    from embedcache.finetune.trainer import TunedTrainer


@dataclass
class TuneReport(HeadReport):
    """What finetune did; to_dict() is what --json prints.

    Attributes:
        trained: train (as in --train), layers (numbers from 1) and parameters of the chosen configuration.
        states: bytes of the cached states, and seconds of what came before the training.
        start: the head from which the chosen configuration started.
    """

    trained: dict[str, Any]
    states: dict[str, Any]
    start: dict[str, Any]


class TunedColumn(Column):
    """A label column whose heads come with layers. trainer: set once there is one."""

    trainer: TunedTrainer
    has_vectors = False  # the tuned layers make them

    def judged(self, winner: Entry, best: TrainedHead) -> dict[str, Judged]:
        """The sides that have rows; the test rows are computed here, with the layers of the best."""
        if len(self.split.test):
            self.trainer.judge(cast(TunedHead, best), self.split.test)
        return super().judged(winner, best)

    def report(
        self, entries: Sequence[Entry], best: TrainedHead, judged: dict[str, Judged], times: Times
    ) -> ColumnReport:
        """With a note where the layers were trained for nothing."""
        report = super().report(entries, best, judged, times)
        config = cast(TunedHead, best).config
        assert config is not None
        start = self.trainer.starts[config.pooling].about
        report.notes = [*gained_nothing(start, report.best, self.choose), *report.notes]
        return report


class TuneJob(Job):
    """One finetune, planned and checked."""

    def execute(self, resume: bool, progress: Progress | None, start: float) -> TuneReport:
        """Train, rank, test, compare with the baselines, write; then the checkpoints go."""
        report = super().execute(resume, progress, start)
        self._tuned.clean()
        return cast(TuneReport, report)

    @property
    def _tuned(self) -> TunedTrainer:
        return cast("TunedTrainer", self.trainer)

    def _report(self, results: Sequence[Result], bank: Bank, start: float) -> TuneReport:
        report = super()._report(results, bank, start)
        best = cast(TunedHead, results[0].best)
        assert best.config is not None
        bench, way = self._tuned.bench, best.config.way
        seconds = self.times.seconds
        report.pooling = best.config.pooling
        report.best["tuned"] = best.config.settings()
        return TuneReport(
            **vars(report),
            trained=about_layers(best, self._tuned),
            states={
                "bytes": 0 if way.depth is None else int(getattr(bench.stored, "bytes", 0)),
                "seconds": seconds.get("reading", 0.0),
            },
            start=self._tuned.starts[best.config.pooling].about,
        )

    def _write_or_keep(self, results: Sequence[Result], report: HeadReport, bank: Bank) -> None:
        try:
            self._write(results, report, bank)
        except EmbedcacheError as error:
            raise EmbedcacheError(
                f"{error}; what was trained is kept in {self._tuned.folder}: make room, then the same command with "
                "--resume writes the run"
            ) from error

    def contents(self, result: Result, bank: Bank, info: dict[str, Any]) -> RunFiles:
        """The run directory, with the tuned tensors in it."""
        best, trainer = cast(TunedHead, result.best), self._tuned
        assert best.config is not None
        encoder = trainer.bench.encoder
        base = {"source": encoder.source, "identity": encoder.identity}
        path = trainer.folder / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        how: dict[str, Any] = {"kind": best.kind_of_layers, "scale": best.scale}
        try:
            save_tuned(path, changed(best, encoder), base, **how)
        except OSError as error:
            raise EmbedcacheError(f"cannot write {path}: {error.strerror or error}") from None
        own = {**self.cache.encoder, **base, "identity": {**encoder.identity, "tuned": file_sha256(path)}}
        files = column_files(result, bank, info)
        files.info |= {
            "encoder": {**own, "store": "float32"},
            "pooling": best.config.pooling,
            "dim": best.dim,
            "dtype": "float32",
            "tuned": {
                **about_layers(best, trainer),
                "base": encoder.source,
                "kind": best.kind_of_layers,
                "start": trainer.starts[best.config.pooling].about,
            },
        }
        return replace(files, own_encoder=path)


def gained_nothing(start: Mapping[str, Any], best: Mapping[str, Any], choose: str) -> list[str]:
    """A note, where the head that was started from is as good on the validation rows, by what chooses."""
    before, after = (one.get(f"val_{choose}") for one in (start, best))
    if before is None or after is None or (after < before if choose == "loss" else after > before):
        return []
    return [
        f"the head that it started from has a validation {title(choose)} of {before:.4f}, after training the layers it "
        f"is {after:.4f}: they were trained for nothing (train-head makes such heads in seconds; a lower --lr may help)"
    ]


def about_layers(best: TunedHead, trainer: TunedTrainer) -> dict[str, Any]:
    """What was trained of the encoder."""
    assert best.config is not None
    way, every = best.config.way, trainer.bench.encoder.layers
    first = every - (way.depth or every) + 1
    numbers = sum(array.size for array in best.layers.values())
    return {"train": way.text, "layers": list(range(first, every + 1)), "parameters": numbers}


def changed(best: TunedHead, encoder: Any) -> dict[str, np.ndarray]:
    """The tensors that differ from the base's; what stands beside them all."""
    if best.kind_of_layers != "tensors":
        return best.layers
    own = dict(encoder.model.named_parameters())
    return {
        name: array
        for name, array in best.layers.items()
        if not np.array_equal(array, own[name].detach().float().cpu().numpy())
    }
