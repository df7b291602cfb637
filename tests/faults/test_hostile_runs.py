"""Runs whose files were changed by somebody who means harm: every reader ends well, or says in one line what is wrong.

The files are those of tests/data; each change is sealed again, as an attacker would.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache.encoder.encoder as encoder_model
from embedcache.audit.sides import run_sides
from embedcache.cache import open_cache
from embedcache.encoder.encoder import Encoder
from embedcache.encoder.load_again import load_again
from embedcache.errors import EmbedcacheError
from embedcache.prediction.classifier import Classifier
from embedcache.report import write_documents, write_report
from embedcache.runs.folder import load_run, with_run
from embedcache.runs.resume import find_heads
from embedcache.serve.leaderboard import read_board
from tests.conftest import fails
from tests.faults.hostile_json import DEEP, cases, dump, with_value
from tests.test_old_files import KINDS, PACKED

LEAKS = (
    "(unexpected:", "Traceback", "KeyError", "TypeError", "ValueError", "AttributeError", "IndexError",
    "RecursionError", "OverflowError", "object has no", "not subscriptable", "not ours",
)  # fmt: skip


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    with tarfile.open(PACKED) as packed:
        packed.extractall(folder, filter="data")
    for path in (folder / "runs").rglob("run.json"):  # where the files are now
        info = json.loads(path.read_text("utf-8"))
        info["cache"]["path"], info["encoder"]["source"] = str(folder / "cache.h5"), str(folder / "encoder")
        path.write_bytes(dump(info))
    return folder


@pytest.fixture
def one_encoder(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder is loaded once, but whether it is the run's is checked each time."""
    kept: dict[str, Encoder] = {}
    load = Encoder.load

    def once(source: str, *args: Any, check: Any = None, **options: Any) -> Encoder:
        if str(source) != str(old / "encoder") or options.get("max_length") != 32:
            return load(source, *args, check=check, **options)
        if "it" not in kept:
            kept["it"] = load(source, *args, **options)
        if check is not None:
            check(kept["it"].identity)
        return kept["it"]

    monkeypatch.setattr(encoder_model.Encoder, "load", once)
    assert load_again(str(old / "encoder"), load_run(old / "runs" / "folds").info["encoder"]["identity"], "it")


def reseal(run: Path) -> None:
    """Make the digests right again, in the run of each column and in that of all."""
    parts = [run, *(one for one in run.iterdir() if one.is_dir() and (one / "run.json").exists())]
    for part in reversed(parts):
        try:
            info = json.loads((part / "run.json").read_text("utf-8", "surrogatepass"))
            for name in info["files"]:
                if (part / name).exists():
                    info["files"][name] = hashlib.sha256((part / name).read_bytes()).hexdigest()
            (part / "run.json").write_bytes(dump(info))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            continue  # it is what was changed


def quickly(run: Path) -> list[Callable[[], Any]]:
    """What the commands do with a run, without what takes long and reads nothing more of it."""

    def predict() -> None:
        classifier = Classifier.load(run, "cpu")
        json.dumps([one.to_dict() for one in classifier.predict(["a great film", ""])], allow_nan=False)

    def serve() -> None:
        json.dumps(with_run(run, read_board), allow_nan=False)

    def sides() -> None:
        with open_cache(run.parent.parent / "cache.h5") as cache:
            run_sides(cache, run, None)

    def resume() -> None:
        for identity in find_heads(run, ["x"]).notes:
            check_line(identity)

    return [predict, serve, sides, resume]


def thoroughly(run: Path) -> list[Callable[[], Any]]:
    return [lambda: write_report(run, run.with_suffix(".html")).to_dict(), lambda: write_documents(run)]


def check_line(line: str) -> None:
    assert "\n" not in line and not any(leak in line for leak in LEAKS), line


def outcome(use: Callable[[], Any]) -> str:
    try:
        use()
    except EmbedcacheError as error:
        check_line(str(error))
        return "refused"
    return "taken"


def attack(old: Path, folder: Path, seed: int, most: int | None, every: int) -> dict[str, int]:
    """Change run.json of each kind of run; every so many are also reported. How many were refused and taken."""
    rng, counts = random.Random(seed), {"refused": 0, "taken": 0}
    for kind in KINDS:
        source = old / "runs" / kind
        part = "label" if kind == "columns" else ""
        info = json.loads((source / part / "run.json").read_text("utf-8"))
        run = folder / "runs" / kind
        shutil.copytree(source, run)
        for number, (place, value, remove) in enumerate(cases(info, rng, most)):
            changed = with_value(info, place, value, remove)
            (run / part / "run.json").write_bytes(dump(changed))
            reseal(run)
            uses = quickly(run) + (thoroughly(run) if number % every == 0 else [])
            for use in uses:
                try:
                    counts[outcome(use)] += 1
                except Exception as error:
                    error.add_note(f"{kind} {place} {'removed' if remove else repr(value)[:80]} seed {seed}")
                    raise
            for name in ("report.html", "README.md"):
                (run / name).unlink(missing_ok=True)
    return counts


@pytest.fixture
def folder(tmp_path: Path, old: Path) -> Path:
    (tmp_path / "cache.h5").symlink_to(old / "cache.h5")
    return tmp_path


def test_hostile_values_in_run_json(old: Path, folder: Path, one_encoder: None) -> None:
    counts = attack(old, folder, seed=0, most=25, every=20)
    print(counts)
    assert counts["refused"] > counts["taken"] / 3 > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(3))
def test_many_hostile_values_in_run_json(old: Path, folder: Path, one_encoder: None, seed: int) -> None:
    attack(old, folder, seed=seed + 1, most=400, every=12)


# ---- by the commands ----


def put(*place: Any, value: Any) -> Callable[[Path, dict[str, Any]], Any]:
    return lambda run, info: (run / "run.json").write_bytes(dump(with_value(info, place, value)))


def fill(value: float) -> Callable[[Path, dict[str, Any]], Any]:
    """Every weight of every head."""

    def change(run: Path, info: dict[str, Any]) -> None:
        from safetensors import safe_open
        from safetensors.numpy import save_file

        for name in ("best.safetensors", "heads.safetensors"):
            with safe_open(str(run / name), framework="numpy") as file:
                tensors = {key: np.full_like(file.get_tensor(key), value) for key in file.keys()}  # noqa: SIM118
                about = file.metadata()
            save_file(tensors, str(run / name), about)

    return change


def nest(run: Path, info: dict[str, Any]) -> None:
    text = (run / "run.json").read_text("utf-8")
    deep = "[" * 100_000 + "]" * 100_000
    (run / "run.json").write_text(text.replace('"recipe": "default"', f'"recipe": {deep}'), "utf-8")


def table(name: str, old: str, new: str) -> Callable[[Path, dict[str, Any]], Any]:
    return lambda run, info: (run / name).write_text((run / name).read_text("utf-8").replace(old, new), "utf-8")


ALL = ("predict", "report", "serve")
NAMED: dict[str, tuple[Callable[[Path, dict[str, Any]], Any], str, tuple[str, ...]]] = {
    "NaN weights": (fill(np.nan), "damaged .*holds NaN or infinity", ALL),
    "infinite weights": (fill(np.inf), "damaged .*holds NaN or infinity", ALL),
    "large weights": (fill(1e38), "damaged .*so large", ALL),
    "a history that is a list": (put("heads", "head-000", "history", value=[1]), "history must be a table", ALL),
    "100,000 levels": (nest, "nested deeper than 32 levels", ALL),
    "classes that are lists": (put("classes", value=[["a"], ["b"]]), "classes.0. must be a text", ALL),
    "half a surrogate pair": (put("classes", value=["\ud800", "b"]), "not JSON .*surrogate", ALL),
    "NaN in JSON": (put("best", "val_loss", value=float("nan")), "is damaged: it is not JSON", ALL),
    "dtype object": (put("dtype", value="object"), "dtype cannot be 'object'", ALL),
    "dtype U9": (put("dtype", value="U9"), "dtype cannot be 'U9'", ALL),
    "dtype int4": (put("dtype", value="int4"), "dtype cannot be 'int4'", ALL),
    "a layer that is a text": (put("layer", value="-1"), "layer: expected str matching regex", ALL),
    "a layer of 1.5": (put("layer", value=1.5), "layer must be a whole number or a text, not 1.5", ALL),
    "a layer that is not there": (put("layer", value=7), "no layer 7", ("predict",)),
    "a temperature that is a text": (put("best", "temperature", value="x"), "best.temperature must be", ALL),
    "a deep value that nobody reads": (put("mine", value=DEEP), "nested deeper than 32 levels", ALL),
    "a leaderboard of NaN": (table("leaderboard.csv", "0.1", "nan"), "leaderboard.csv is damaged", ALL[1:]),
    "a leaderboard of others": (table("leaderboard.csv", "head-", "tail-"), "run.json has no head", ALL[1:]),
    "a quote without end": (table("leaderboard.csv", "head-003", '"'), "leaderboard.csv is damaged", ALL[1:]),
    "epochs of text": (table("history.csv", "head-000,0,0", "head-000,0,x"), "history.csv is damaged", ("serve",)),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_commands_say_it_in_one_line(old: Path, tmp_path: Path, name: str) -> None:
    """A server does not even start."""
    change, words, commands = NAMED[name]
    run = Path(shutil.copytree(old / "runs" / "classification", tmp_path / "run"))
    change(run, json.loads((run / "run.json").read_text("utf-8")))
    reseal(run)
    arguments: dict[str, list[Any]] = {
        "predict": ["predict", run, "a great film", *(["--calibrated"] if "temperature" in name else [])],
        "report": ["report", run, "-o", tmp_path / "report.html"],
        "serve": ["serve", old / "cache.h5", "--run", run, "--port", 0],
    }
    for command in commands:
        line = fails(*arguments[command])
        check_line(line.removeprefix("Error: "))
        assert (re.search(words, line) and "train it again" in line) or name == "a layer that is not there", line
    assert not (tmp_path / "report.html").exists() or "report" not in commands


def test_resume_does_not_keep_what_is_damaged(old: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(old / "runs" / "classification", tmp_path / "run"))
    fill(np.nan)(run, {})
    reseal(run)
    (note,) = find_heads(run, ["e113e56339e95746a22064ea15b68f28"]).notes
    assert "holds NaN or infinity" in note
