"""What only the native engine promises: the same bits always, cancelling, memory, and clear words without it."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from engines import Engine, make_task, native_cpu_engines, parametrize, same_heads

from embedcache.errors import EmbedcacheError
from embedcache.heads import native
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.heads.train import EngineWarning, train_bank, train_heads


@parametrize(native_cpu_engines)
class TestSameBits:
    def test_alone_and_among_63_others(self, engine: Engine) -> None:
        tasks = [make_task(150, 50, 3, n_val=40), make_task(90, 50, 2, seed=1)]
        specs = head_grid(hidden=[0, 37, 64, 96], lr=[1e-3, 1e-2], dropout=[0.0, 0.2], seed=range(4))
        bank = engine.train(tasks, [(spec, i % 2) for i, spec in enumerate(specs)], epochs=2)
        assert len(bank.heads) == 64
        for i in (0, 21, 63):
            alone = engine.train(tasks, [(specs[i], i % 2)], epochs=2)
            assert same_heads(alone, bank, slice(None), slice(i, i + 1))

    @pytest.mark.parametrize("hidden, classes, batch", [(128, 2, 32), (0, 3, 32), (200, 300, 64)])
    def test_any_number_of_threads_and_a_second_run(
        self, engine: Engine, hidden: int, classes: int, batch: int
    ) -> None:
        """The sizes make teams of several threads; the last shares its softmax (over 8192 logits in a batch)."""
        task = make_task(700, 300, classes, n_val=300)
        heads = [(HeadSpec(hidden=hidden, seed=s), 0) for s in range(3)]
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


def test_five_thousand_classes() -> None:
    task = make_task(6000, 32, 5000, n_val=100)
    engine = Engine("native", "cpu")
    one = engine.train([task], [(HeadSpec(hidden=64), 0)], epochs=1, batch_size=64, threads=1)
    two = engine.train([task], [(HeadSpec(hidden=64), 0)], epochs=1, batch_size=64, threads=2)
    assert same_heads(one, two)
    assert 8 < one.history["train_loss"][0, 0] < np.log(5000) + 0.2


def test_progress_reaches_the_end() -> None:
    told: list[tuple[int, int]] = []
    task = make_task(500, 64, 2)
    heads = [(HeadSpec(hidden=256, seed=s), 0) for s in range(4)]
    train_bank([task], heads, epochs=40, device="cpu", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (500 * 40 * 4, 500 * 40 * 4)
    assert told == sorted(told)


def test_ctrl_c_returns_what_is_finished() -> None:
    task = make_task(2000, 256, 2, n_val=50)
    heads = [(HeadSpec(hidden=256, seed=s), 0) for s in range(20)]
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(done: int, total: int) -> None:
        if done > total / 20:
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.5)

    start = time.perf_counter()
    result = train_bank([task], heads, epochs=200, device="cpu", engine="native", progress=interrupt)
    assert time.perf_counter() - start < 60
    assert result.cancelled
    statuses = {head.status for head in result.heads}
    assert "cancelled" in statuses
    for i, head in enumerate(result.heads):
        assert np.isnan(result.history["train_loss"][i, head.epochs_run :]).all()
        assert (head.best_epoch >= 0) == any(array.any() for array in head.weights.values())


def test_an_error_in_progress_stops_the_training() -> None:
    def fail(done: int, total: int) -> None:
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
        monkeypatch.setattr(native, "_path", lambda kind: None)
        monkeypatch.setattr(native, "_libraries", {})

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
    monkeypatch.setattr(native, "ABI_VERSION", 999)
    monkeypatch.setattr(native, "_libraries", {})
    with pytest.raises(native.NativeUnavailableError, match="version"):
        native.library("cpu")


def test_no_gpu_is_said_clearly() -> None:
    try:
        native.find("cuda")
    except native.NativeUnavailableError:
        pass
    else:
        pytest.skip("there is a GPU")
    with pytest.raises(EmbedcacheError, match=r"cuda|GPU"):
        train_bank([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)], engine="native", device="cuda")


def test_the_library_checks_what_python_did_not() -> None:
    engine = native.NativeEngine("cpu", 0)
    from embedcache.heads.bank import Options

    task = make_task(20, 4, 2)
    task.train.y[task.train.rows[7]] = 2
    task.train.rows = np.ascontiguousarray(task.train.rows, np.int64)
    with pytest.raises(EmbedcacheError, match="class"):
        engine.train([task], [(HeadSpec(hidden=4), 0)], Options(), None)


def test_isa_can_be_forced() -> None:
    before = os.environ.get("EMBEDCACHE_ISA")
    assert before is None or before in ("avx512", "avx2", "plain")
    assert Engine("native", "cpu", "plain").train([make_task(20, 4, 2)], [(HeadSpec(hidden=4), 0)]).engine == (
        "native-cpu-plain"
    )
