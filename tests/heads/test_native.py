"""What only the native engine promises: the same bits always, cancelling, memory, and clear words without it."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads import engine_native
from embedcache.heads.engine import EngineWarning
from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.heads.task import Options
from embedcache.heads.train import train_bank, train_heads
from tests.heads.engines import Engine, make_task, native_cpu_engines, parametrize, same_heads
from tests.heads.float64_reference import train


@parametrize(native_cpu_engines)
class TestSameBits:
    def test_alone_and_among_63_others(self, engine: Engine) -> None:
        tasks = [make_task(150, 50, 3, n_val=40), make_task(90, 50, 2, seed=1)]
        specs = head_grid(hidden=0, lr=[1e-3, 1e-2], seed=range(8))
        specs += head_grid(hidden=[37, 64, 96], lr=[1e-3, 1e-2], dropout=[0.0, 0.2], seed=range(4))
        bank = engine.train(tasks, [(spec, i % 2) for i, spec in enumerate(specs)], epochs=2)
        assert len(bank.heads) == 64
        for i in (0, 21, 63):
            alone = engine.train(tasks, [(specs[i], i % 2)], epochs=2)
            assert same_heads(alone, bank, None, [i])

    def test_alone_and_among_others_of_every_kind(self, engine: Engine) -> None:
        tasks = [make_task(110, 50, 3, n_val=40, kind=kind, weighted=kind != "regression") for kind in KINDS]
        tasks += [make_task(90, 50, 6, kind=kind, seed=1) for kind in KINDS]
        settings = {"hidden": [0, 37, 96], "schedule": ["constant", "linear", "cosine"], "warmup": [0.0, 0.2]}
        heads = [(spec, t) for t in (0, 1, 3, 4) for spec in head_grid(label_smoothing=[0.0, 0.1], **settings)]
        heads += [(spec, t) for t in (2, 5) for spec in head_grid(seed=[0, 1], **settings)]
        heads += [(HeadSpec(hidden=64, class_weight=w), t) for w in ("balanced", "none") for t in (0, 1, 3, 4)]
        bank = engine.train(tasks, heads, epochs=2)
        for i in range(0, len(heads), 11):
            assert same_heads(engine.train(tasks, [heads[i]], epochs=2), bank, None, [i]), heads[i]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("hidden, classes, batch", [(128, 2, 32), (0, 3, 32), (200, 300, 64)])
    def test_any_number_of_threads_and_a_second_run(
        self, engine: Engine, hidden: int, classes: int, batch: int, kind: str
    ) -> None:
        """The sizes make teams of several threads; the last shares its loss (over 8192 logits in a batch)."""
        task = make_task(700, 300, classes, n_val=300, kind=kind, weighted=kind != "regression")
        smoothing = 0.0 if kind == "regression" else 0.1
        settings = {"hidden": hidden, "label_smoothing": smoothing, "schedule": "cosine", "warmup": 0.1}
        heads = [(HeadSpec(**settings, seed=s), 0) for s in range(3)]
        one = engine.train([task], heads, epochs=2, batch_size=batch, threads=1)
        for threads in (2, 2, 3, 5, 16):
            again = engine.train([task], heads, epochs=2, batch_size=batch, threads=threads)
            assert same_heads(one, again), threads

    def test_teams_without_validation(self, engine: Engine) -> None:
        task = make_task(500, 768, 2)
        heads = [(HeadSpec(hidden=128), 0)]
        one = engine.train([task], heads, epochs=6, threads=1)
        for _ in range(5):
            assert same_heads(one, engine.train([task], heads, epochs=6, threads=2))

    def test_matrix_in_place_or_strided_or_mapped(self, engine: Engine, tmp_path) -> None:
        task = make_task(100, 40, 2, n_val=30, dtype=np.float16)
        heads = [(HeadSpec(hidden=32), 0)]
        plain = engine.train([task], heads, epochs=2)
        wide = np.full((len(task.train.x), 77), np.nan, np.float16)
        wide[:, 5:45] = task.train.x
        np.save(tmp_path / "x.npy", task.train.x)
        for x in (wide[:, 5:45], np.load(tmp_path / "x.npy", mmap_mode="r"), np.asfortranarray(task.train.x)):
            task.train.x = task.val.x = x
            assert same_heads(plain, engine.train([task], heads, epochs=2))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs a system that drops a file from memory")
@pytest.mark.parametrize("hidden, compute", [(0, "float32"), (64, "float32"), (64, "bfloat16")])
@pytest.mark.parametrize("batch", [32, 500])
def test_matrix_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: int, compute: str, batch: int) -> None:
    """The engine asks for rows ahead; the check before it, which reads them all, is made to drop them again."""
    task = make_task(1500, 200, 2, n_val=700, dtype=np.float16)
    heads = [(HeadSpec(hidden=hidden, seed=s), 0) for s in range(3)]
    engine, options = Engine("native", "cpu"), {"epochs": 2, "batch_size": batch, "compute": compute}
    in_memory = engine.train([task], heads, **options)
    np.save(tmp_path / "x.npy", task.train.x)
    task.train.x = task.val.x = np.load(tmp_path / "x.npy", mmap_mode="r")

    def drop(views: object) -> None:
        with (tmp_path / "x.npy").open("rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    monkeypatch.setattr("embedcache.heads.task._check_finite", drop)
    for threads in (1, 2):
        assert same_heads(in_memory, engine.train([task], heads, threads=threads, **options))


def test_five_thousand_classes() -> None:
    task = make_task(6000, 32, 5000, n_val=100)
    engine = Engine("native", "cpu")
    one = engine.train([task], [(HeadSpec(hidden=64), 0)], epochs=1, batch_size=64, threads=1)
    two = engine.train([task], [(HeadSpec(hidden=64), 0)], epochs=1, batch_size=64, threads=2)
    assert same_heads(one, two)
    assert 8 < one.history["train_loss"][0, 0] < np.log(5000) + 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [0, 8])
def test_five_thousand_outputs_against_float64(kind: str, hidden: int) -> None:
    task = make_task(60, 6, 5000, n_val=20, kind=kind)
    spec = HeadSpec(hidden=hidden, label_smoothing=0.0 if kind == "regression" else 0.1)
    result = Engine("native", "cpu").train([task], [(spec, 0)], epochs=2, batch_size=16)
    reference = train(task, spec, 16, 2)
    np.testing.assert_allclose(result.history["train_loss"][0], reference.train_loss, rtol=1e-5)
    np.testing.assert_allclose(result.history["val_loss"][0], reference.val_loss, rtol=1e-5)
    np.testing.assert_allclose(result.history["val_macro_f1"][0], reference.val_macro_f1, atol=1e-3)


def test_progress_reaches_the_end() -> None:
    told: list[tuple[int, int]] = []
    task = make_task(500, 64, 2)
    heads = [(HeadSpec(hidden=256, seed=s), 0) for s in range(4)]
    train_bank([task], heads, epochs=40, device="cpu", progress=lambda done, total, rows: told.append((done, total)))
    assert told[-1] == (500 * 40 * 4, 500 * 40 * 4)
    assert told == sorted(told)


def test_ctrl_c_returns_what_is_finished() -> None:
    task = make_task(2000, 256, 2, n_val=50)
    heads = [(HeadSpec(hidden=256, seed=s), 0) for s in range(20)]
    main = threading.main_thread().ident
    assert main is not None

    sent: list[int] = []

    def interrupt(done: int, total: int, rows: int) -> None:
        if done > total / 20 and not sent:
            sent.append(done)
            signal.pthread_kill(main, signal.SIGINT)

    start = time.perf_counter()
    result = train_bank([task], heads, epochs=200, device="cpu", engine="native", progress=interrupt)
    assert time.perf_counter() - start < 60
    assert result.cancelled
    statuses = {head.status for head in result.heads}
    assert "cancelled" in statuses
    for i, head in enumerate(result.heads):
        assert np.isnan(result.history["train_loss"][i, head.epochs_run :]).all()
        assert (head.best_epoch > 0) == any(array.any() for array in head.weights.values())


def test_an_error_in_progress_stops_the_training() -> None:
    def fail(done: int, total: int, rows: int) -> None:
        raise RuntimeError("the bar broke")

    task = make_task(2000, 256, 2)
    with pytest.raises(RuntimeError, match="the bar broke"):
        train_bank([task], [(HeadSpec(), 0)], epochs=1000, device="cpu", engine="native", progress=fail)


def test_memory_is_the_heads_state_and_a_little(tmp_path) -> None:
    """64 heads of 0.4 million weights, one after the other: never more than two of them at a time."""
    resource = pytest.importorskip("resource")
    x = np.random.default_rng(0).standard_normal((256, 768)).astype(np.float16)
    y = np.arange(256) % 2
    heads = head_grid(hidden=512, seed=range(64))
    train_heads(x, y, heads[:2], epochs=1, device="cpu", threads=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = train_heads(x, y, heads, epochs=1, device="cpu", threads=2)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    returned = sum(array.nbytes for head in result.heads for array in head.weights.values())
    assert grown < returned + 64 * 2**20


def test_no_more_threads_than_a_bank_can_use() -> None:
    task = make_task(20, 4, 2)
    many = Engine("native", "cpu").train([task], [(HeadSpec(hidden=4), 0)], threads=2**31 - 1)
    assert same_heads(many, Engine("native", "cpu").train([task], [(HeadSpec(hidden=4), 0)], threads=1))


class TestMissing:
    @pytest.fixture(autouse=True)
    def no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_native, "_path", lambda kind: None)
        monkeypatch.setattr(engine_native, "_libraries", {})

    def test_auto_takes_torch_and_says_so(self) -> None:
        with pytest.warns(EngineWarning, match="not built.*torch engine"):
            result = train_bank([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)], epochs=1, device="cpu")
        assert result.engine == "torch-cpu"

    def test_native_is_an_error(self) -> None:
        with pytest.raises(EmbedcacheError, match="not built"):
            train_bank([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)], engine="native")

    def test_torch_says_nothing(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", EngineWarning)
            train_bank([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)], engine="torch", device="cpu", epochs=1)


def test_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_native, "ABI_VERSION", 999)
    monkeypatch.setattr(engine_native, "_libraries", {})
    with pytest.raises(engine_native.NativeUnavailableError, match="version"):
        engine_native.library("cpu")


def test_no_gpu_is_said_clearly() -> None:
    try:
        engine_native.find("cuda")
    except engine_native.NativeUnavailableError:
        pass
    else:
        pytest.skip("there is a GPU")
    with pytest.raises(EmbedcacheError, match=r"cuda|GPU"):
        train_bank([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)], engine="native", device="cuda")


@pytest.mark.parametrize(
    "kind, bad, words",
    [
        ("classification", 2, "a class out of range"),
        ("multilabel", 0.5, "a label is neither 0 nor 1"),
        ("regression", np.nan, "a target is not finite"),
    ],
)
def test_the_library_checks_what_python_did_not(kind: str, bad: float, words: str) -> None:
    engine = engine_native.NativeEngine("cpu", 0)
    task = make_task(20, 4, 2, kind=kind)
    task.train.y[task.train.rows[7]] = bad
    with pytest.raises(EmbedcacheError, match=words):
        engine.train([task], [(HeadSpec(hidden=4), 0)], Options(), None)


@pytest.mark.parametrize(
    "kind, settings, words",
    [
        ("regression", {"label_smoothing": 0.1}, "no label smoothing"),
        ("regression", {"class_weight": (1.0, 2.0)}, "no class weights"),
        ("classification", {"class_weight": (1.0, 0.0)}, "not above 0"),
        ("classification", {"label_smoothing": 1.0}, "label_smoothing and warmup"),
        ("classification", {"warmup": -0.1}, "label_smoothing and warmup"),
        ("regression", {"loss": "focal"}, "numbers have the squared error alone"),
        ("classification", {"loss": "focal", "focal_gamma": -1.0}, "a loss's setting below 0"),
        ("multilabel", {"loss": "focal", "focal_gamma": math.nan}, "a loss's setting below 0"),
    ],
)
def test_the_library_checks_settings_too(kind: str, settings: dict, words: str) -> None:
    spec = HeadSpec(hidden=4)
    for name, value in settings.items():
        object.__setattr__(spec, name, value)  # around HeadSpec's own checks
    with pytest.raises(EmbedcacheError, match=words):
        engine_native.NativeEngine("cpu", 0).train([make_task(20, 4, 2, kind=kind)], [(spec, 0)], Options(), None)


def test_isa_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_ISA", "avx512")  # what is asked for goes before it
    assert Engine("native", "cpu", "plain").train([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)]).engine == (
        "native-cpu-plain"
    )


def test_the_cuda_library_may_lie_in_a_package_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "embedcache_cuda"
    package.mkdir()
    for name in ("__init__.py", "_heads_cuda.so"):
        (package / name).touch()
    beside = engine_native.find_library(engine_native.__file__, "_heads_cuda")
    monkeypatch.setattr(engine_native, "__file__", str(tmp_path / "elsewhere" / "engine_native.py"))
    assert engine_native._path("cuda") is None
    monkeypatch.syspath_prepend(tmp_path)
    assert engine_native._path("cuda") == package / "_heads_cuda.so"
    assert engine_native._path("cpu") is None
    if beside:  # what was compiled with this version goes before it
        monkeypatch.undo()
        monkeypatch.syspath_prepend(tmp_path)
        assert engine_native._path("cuda") == beside
