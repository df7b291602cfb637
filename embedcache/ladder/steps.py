"""What one step of a ladder does. A step is plain data, and so is what it gives: it runs in a process of its own."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.state_files import index_path, values_path
from embedcache.cache.state_writer import remove_states
from embedcache.common.checked import SchemaError, read_json
from embedcache.common.progress import Progress, Tell
from embedcache.common.whole_file import whole_binary, whole_file
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from embedcache.extraction.token_states import open_there
from embedcache.finetune.compute import FASTER
from embedcache.finetune.job import finetune
from embedcache.heads.task import weight_shapes
from embedcache.labelling.opened import open_labelled
from embedcache.ladder.rows import AskedRows, CommonRows
from embedcache.ladder.rungs import HEAD, TFIDF, ZERO_SHOT, Rung, read_rung
from embedcache.prediction.classifier import Classifier
from embedcache.prompting.labels import read_labels
from embedcache.prompting.method import AskedPrompt
from embedcache.prompting.methods import Similarity
from embedcache.report.train_run import train_run
from embedcache.runs.baseline_features import BaselineRows
from embedcache.runs.baselines import baselines_for
from embedcache.runs.folder import is_run, load_run
from embedcache.runs.resume import unfinished_paths
from embedcache.runs.split import SIDES, rows_digest

TIMED = 256  # test texts on which predictions a second are measured


@dataclass(frozen=True)
class Step:
    """A rung to climb.

    Attributes:
        rung: its name.
        cache: with its vectors, and token states where the rung reads them.
        folder: where the run and what is known of it go.
        rows: see AskedRows.
        seed: of what is trained; None: the rung trains nothing by chance.
        labels: descriptions for zero-shot; None: the classes as they are called.
        compute: of the layers' products, as finetune has it.
        model: where the encoder is, if it has moved.
        resume: whether a run that is there, or its checkpoint, is used.
    """

    rung: str
    cache: str
    folder: str
    rows: AskedRows
    seed: int | None = None
    labels: str | None = None
    device: str = "auto"
    compute: str = "auto"
    model: str | None = None
    trust_remote_code: bool = False
    resume: bool = False

    @property
    def place(self) -> Path:
        """The run's folder, and the beginning of the names beside it; without a seed that is the split's."""
        name = read_rung(self.rung).place
        return Path(self.folder) / (name if self.seed in (None, self.rows.seed) else f"{name}-seed-{self.seed}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Step:
        return cls(**{**values, "rows": AskedRows(**values["rows"])})


def known(step: Step) -> dict[str, Any] | None:
    """What an earlier ladder found on this rung; None where nothing is known."""
    try:
        found: dict[str, Any] = read_json(step.place.with_suffix(".json"))
        predictions(step)
    except (OSError, SchemaError, ValueError):
        return None
    return found


def predictions(step: Step) -> np.ndarray:
    """What the rung said of the test rows, in the form of y. Raises OSError, ValueError."""
    return np.asarray(np.load(step.place.with_suffix(".npy"), allow_pickle=False))


def climb(step: Step, progress: Progress | None, tell: Tell) -> dict[str, Any]:
    """Do one rung and keep what it found beside its run; JSON types.

    Raises:
        EmbedcacheError: data, states or an encoder that cannot be used.
    """
    rung = read_rung(step.rung)
    Path(step.folder).mkdir(parents=True, exist_ok=True)
    with open_labelled(step.cache, step.rows.labels) as cache:
        rows = CommonRows.read(cache, step.rows)
        work = _zero_shot if rung.name == ZERO_SHOT else _baseline if rung.shared else _run
        predicted, found, predict = work(step, rung, cache, rows, progress, tell)
        found |= {"rung": rung.name, "trained": rung.trained, "rows": rows.digest, "peak_memory": peak_memory()}
        found |= _speed(predict, [cache.texts[int(row)] for row in rows.split.test[:TIMED]])
    with whole_binary(step.place.with_suffix(".npy")) as file:
        np.save(file, predicted, allow_pickle=False)
    with whole_file(step.place.with_suffix(".json")) as text:
        json.dump(found, text)
    return found


Predict = Callable[[list[str]], Any] | None
Done = tuple[np.ndarray, dict[str, Any], Predict]


def _baseline(step: Step, rung: Rung, cache: Cache, rows: CommonRows, progress: Any, tell: Tell) -> Done:
    start = time.perf_counter()
    data = rows.data
    reads = "texts" if rung.name == TFIDF else ""
    baseline = next(one for one in baselines_for(data.kind) if one.reads == reads)
    fitted = baseline.fit(BaselineRows(cache.texts, data.x, data.y, rows.split, data.kind))
    if note := fitted.scores.get("note"):
        if "test" not in fitted.predicted:
            raise EmbedcacheError(f"{rung.name}: {note}")
        tell(f"{rung.name}: {note}")
    outputs = 1 if len(data.classes) <= 2 and data.y.ndim == 1 else len(data.classes)
    found = {"parameters": (fitted.scores.get("features", -1) + 1) * outputs, "disk": 0}
    return fitted.predicted["test"], {**found, "seconds": time.perf_counter() - start}, None


def _zero_shot(step: Step, rung: Rung, cache: Cache, rows: CommonRows, progress: Any, tell: Tell) -> Done:
    start = time.perf_counter()
    labels = read_labels(step.labels if step.labels is not None else list(rows.data.classes))
    asked = AskedPrompt(
        model=step.model or cache.encoder["source"], labels=labels, cache=cache, device=step.device,
        trust_remote_code=step.trust_remote_code,
    )  # fmt: skip
    method = Similarity(asked)
    answers = method.cached(cache, rows.split.test, lambda _: None)
    predicted = rows.coded(answers.columns[0].to_pylist())
    found = {"parameters": 0, "disk": 0, "seconds": time.perf_counter() - start}
    return predicted, found, lambda texts: method.texts(texts, lambda _: None)


def _run(step: Step, rung: Rung, cache: Cache, rows: CommonRows, progress: Progress | None, tell: Tell) -> Done:
    place = step.place
    if not (step.resume and _is_done(place, cache)):
        common: dict[str, Any] = {
            **step.rows.options(), "seed": step.seed, "device": step.device, "progress": progress, "tell": tell,
        }  # fmt: skip
        if rung.name == HEAD:
            begun = any(path.exists() for path in unfinished_paths(place))
            train_run(cache.path, place, resume=step.resume and begun, **common)
        else:
            more: dict[str, Any] = {"model": step.model, "trust_remote_code": step.trust_remote_code}
            more["compute"] = step.compute
            common["tell"] = lambda line: None if line == FASTER else tell(line)  # said once, with the plan
            more["from_run"] = _start(step, cache, rows)
            finetune(cache.path, place, train=rung.name, resume=step.resume, **more, **common)
    run = load_run(place)
    info, best = run.info, run.best
    head = sum(int(np.prod(shape)) for shape in weight_shapes(best.spec, best.dim, len(run.classes)).values())
    layers = (info.get("tuned") or {}).get("parameters", 0)
    found = {
        "parameters": head + layers,
        "seconds": info["seconds"] - info.get("times", {}).get("baselines", 0.0),  # the same in every run: not its own
        "disk": sum(file.stat().st_size for file in place.iterdir() if file.is_file()),
        "run": str(place),
    }

    def predict(texts: list[str]) -> Any:
        return classifier.predict(texts)

    classifier = Classifier.load(
        place, step.device, model=step.model, trust_remote_code=step.trust_remote_code
    )  # fmt: skip
    return rows.of_run(place), found, predict


def _start(step: Step, cache: Cache, rows: CommonRows) -> Path | None:
    """The head rung's run, where it learned from these vectors and rows: its head need not be trained again."""
    place = replace(step, rung=HEAD).place
    if not _is_done(place, cache):
        return None
    info, data = load_run(place).info, rows.data
    found = [info["pooling"], info.get("layer", -1), info["label"], info["classes"], info["split"].get("digests")]
    digests = {side: rows_digest(getattr(rows.split, side)) for side in SIDES}
    return place if found == [data.pooling, data.layer, data.label, data.classes, digests] else None


def _is_done(place: Path, cache: Cache) -> bool:
    """Whether the run of this cache is there, and only what was to be written beside it is missing."""
    if not is_run(place):
        return False
    with suppress(EmbedcacheError):
        return bool(load_run(place).info["cache"]["fingerprint"] == cache.fingerprint)
    return False


def _speed(predict: Predict, texts: list[str]) -> dict[str, Any]:
    """Texts to labels, tokenizing included, after a few to warm up."""
    if predict is None:
        return {"predictions_per_second": None, "load": None}
    predict(texts[:8])
    start = time.perf_counter()
    predict(texts)
    seconds, load = time.perf_counter() - start, os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"predictions_per_second": len(texts) / seconds, "load": load}


def peak_memory() -> int | None:
    """Bytes that this process had in memory at most; None where the system does not tell."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def make_cache(inputs: str, cache: str, progress: Progress | None, tell: Tell, **options: Any) -> dict[str, Any]:
    """The one pass over a table; JSON types. options: of ``extract``."""
    there = open_there(Path(cache), options["tokens"])
    if there is not None:
        there.close()  # Windows removes no file that is open
        if there.about.layers < options["tokens"]:
            remove_states(Path(cache))  # of a ladder with fewer rungs; deeper ones serve the rungs below, too
    report = extract(inputs, cache, progress=progress, tell=tell, **options)
    files: Sequence[Path] = (Path(cache), index_path(Path(cache)), values_path(Path(cache)))
    disk = sum(file.stat().st_size for file in files if file.exists())
    return {"seconds": report.seconds, "disk": disk, "peak_memory": peak_memory(), "tokens": report.tokens}
