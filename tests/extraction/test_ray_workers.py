"""The pass on Ray: the same file to the bit as by one process, also where workers are killed or see no shared file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedcache.cache import open_cache, verify
from embedcache.cache.state_writer import StateFill
from embedcache.errors import EmbedcacheError
from embedcache.extraction import ray_workers as workers
from embedcache.extraction.job import extract
from embedcache.extraction.ray_cluster import Cluster, cores_for
from tests.conftest import fails, make_reviews, write_csv
from tests.extraction.test_extract import assert_same, contents
from tests.extraction.token_files import files_of

pytest.importorskip("ray")
ROWS = 6000


@pytest.fixture(scope="module")
def made(tiny_bert, tmp_path_factory):
    """table.csv, in which windows share texts with earlier ones, and one.h5 with token states, by one process."""
    folder = tmp_path_factory.mktemp("workers")
    rows = make_reviews(ROWS)
    for i in range(0, 1000, 97):
        rows[i + 2900] = (rows[i][0], "positive")
    table = write_csv(folder / "table.csv", rows)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker has: torch rounds differently on two cores
    extract(table, folder / "one.h5", model=tiny_bert, device="cpu", pooling=("cls", "mean"), tokens=1)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A local Ray that stays for all tests of this module; extract finds it and leaves it alone."""
    cluster = Cluster("local", 3)
    yield cluster
    cluster.close()


@pytest.fixture
def run(made, tiny_bert, tmp_path, cluster):
    def run(**options):
        settings = {"model": tiny_bert, "device": "cpu", "pooling": ("cls", "mean"), "workers": 3}
        return extract(made / "table.csv", tmp_path / "cache.h5", **{**settings, **options})

    return run


def actors(ancestor: int) -> list[int]:
    """Processes below ``ancestor`` that are actors of ours."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(folder.name)] = (folder / "cmdline").read_bytes()
            except OSError:
                pass

    def is_below(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [pid for pid, name in names.items() if name.startswith(b"ray::Actor") and is_below(pid)]


class Killer:
    """A progress callback that kills actors with SIGKILL, each after so many texts."""

    def __init__(self, *after: int) -> None:
        self.after, self.killed = [*after], 0

    def __call__(self, done: int, total: int, texts: int) -> None:
        if self.after and texts >= self.after[0]:
            self.after.pop(0)
            deadline = time.monotonic() + 60
            while not (found := actors(os.getpid())):  # those that were killed before are being started again
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.kill(found[0], signal.SIGKILL)
            self.killed += 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the actors in /proc")
def test_one_of_three_workers_is_killed_midway(run, made, tmp_path):
    kill, calls = Killer(1500), []
    report = run(progress=lambda *call: (calls.append(call), kill(*call)), tokens=1)
    assert kill.killed == 1
    assert_same(contents(tmp_path / "cache.h5"), contents(made / "one.h5"))
    assert files_of(tmp_path / "cache.h5") == files_of(made / "one.h5")
    assert verify(tmp_path / "cache.h5").ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5", "cache.tokens.hdf5", "cache.tokens.npy"]
    assert report.encoded == calls[-1][2] < ROWS and calls[-1][:2] == (report.tokens, report.tokens)
    assert run().encoded == 0


@pytest.mark.slow
def test_workers_that_see_no_shared_file(run, made, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.RayWorker, "_answered", lambda *_: False)
    run(store="float32", tokens=1)
    assert files_of(tmp_path / "cache.h5") == files_of(made / "one.h5")
    with open_cache(tmp_path / "cache.h5") as cache, open_cache(made / "one.h5") as one:
        np.testing.assert_array_equal(cache.embeddings("mean").astype(np.float16), one.embeddings("mean"))


@pytest.mark.slow
def test_vectors_in_int8_take_their_scales_along(run, made, tiny_bert, tmp_path):
    """Written by workers, and copied to the rows of later windows that have the same text."""
    run(store="int8", dtype="float32")
    options = {"model": tiny_bert, "device": "cpu", "pooling": ("cls", "mean"), "dtype": "float32", "store": "int8"}
    extract(made / "table.csv", tmp_path / "one.h5", **options)
    with open_cache(tmp_path / "cache.h5") as cache, open_cache(tmp_path / "one.h5") as one:
        for path in cache.layout.datasets:
            np.testing.assert_array_equal(cache.array(path), one.array(path), err_msg=path)
    assert verify(tmp_path / "cache.h5").ok


@pytest.mark.slow
def test_blocks_are_written_by_the_workers(run, monkeypatch):
    """All but those that wait for a text of an earlier window."""
    counts = {"helper": 0, "driver": 0}
    for name, owner in (("helper", "embedcache.cache.remote_fill.Helpers"), ("driver", "embedcache.cache.fill.Filler")):
        module, _, kind = owner.rpartition(".")
        plain = getattr(sys.modules[module], kind).finish

        def count(*arguments, plain=plain, name=name):
            counts[name] += 1
            return plain(*arguments)

        monkeypatch.setattr(f"{owner}.finish", count)
    plain_put, written = StateFill.put, []
    monkeypatch.setattr(StateFill, "put", lambda self, row, values: written.append(row) or plain_put(self, row, values))
    run(tokens=1)
    assert counts["helper"] >= 3 and sum(counts.values()) == -(-ROWS // 1024)
    assert not written  # all token states by the workers


@pytest.mark.slow
def test_what_is_stopped_goes_on(run, made, tmp_path):
    def stop(done, total, texts):
        if texts > 4000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workers=1, progress=stop)
    with open_cache(tmp_path / "cache.h5") as cache:
        assert cache.missing_rows() < ROWS - 2000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5"]
    run(workers=2)
    assert_same(contents(tmp_path / "cache.h5"), contents(made / "one.h5"))


@pytest.mark.slow
def test_another_model_on_a_worker_is_refused(run, tiny_bert, bert_copy, tmp_path, monkeypatch):
    """The folder changes between the driver's look at it and the worker's."""
    plain = workers.RayEncoders.__init__

    def change_first(self, *arguments):
        data = bytearray((bert_copy / "model.safetensors").read_bytes())
        data[-5] ^= 1
        (bert_copy / "model.safetensors").write_bytes(data)
        plain(self, *arguments)

    monkeypatch.setattr(workers.RayEncoders, "__init__", change_first)
    with pytest.raises(EmbedcacheError, match=r"encoder at .* differs from the one here: weights model.safetensors"):
        run(model=bert_copy)
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.slow
def test_a_layer_that_is_not_there(run, tmp_path):
    with pytest.raises(EmbedcacheError, match=r"no layer 9: the encoder has 2"):
        run(layers=9)
    assert not list(tmp_path.iterdir())


def test_gpus_that_the_cluster_does_not_have(run, cluster):
    if cluster.gpus:
        pytest.skip("it has")
    with pytest.raises(EmbedcacheError, match="no node of the Ray cluster has a GPU"):
        run(device="cuda")


@pytest.mark.parametrize("device", ["cuda:0", "cuda:all", "cuda:0,cuda:1"])
def test_devices_are_rays_to_choose(run, device):
    with pytest.raises(EmbedcacheError, match="with --ray or --workers use auto, cpu or cuda"):
        run(device=device)


def test_without_ray_one_line_says_what_to_install(made, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = fails(
        "extract",
        made / "table.csv",
        "-o",
        tmp_path / "c.h5",
        "--model",
        tiny_bert,
        "--ray",
        "local",
        "--device",
        "cpu",
    )
    assert "pip install 'embedcache[ray]'" in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([2], None, (1, 2)),
        ([2], 3, (3, 1)),
        ([64], None, (4, 16)),
        ([16, 16], 3, (3, 8)),
        ([16, 16], 2, (2, 16)),
        ([4, 64], 5, (5, 12)),
        ([1, 1, 1], None, (3, 1)),
    ],
)
def test_cores_for(nodes, workers, expected):
    assert cores_for(nodes, workers) == expected


@pytest.mark.parametrize("changed", [{}, {"secret": "x"}, {"inode": 1}, {"created": "1999"}, {"path": "/nowhere/c.h5"}])
def test_only_the_drivers_own_file_is_written(made, tmp_path, changed):
    """A path may exist on another machine, with other contents."""
    path = Path(shutil.copy(made / "one.h5", tmp_path / "c.h5"))
    (tmp_path / ".c.h5.ray").mkdir()
    (tmp_path / ".c.h5.ray" / "secret").write_text("s")
    with open_cache(path) as cache:
        shared = replace(workers.Shared(str(path), "s", path.stat().st_ino, cache.created), **changed)
    actor = workers.Actor("", {}, {}, 1)
    actor.attach(shared, "answer")
    assert (tmp_path / ".c.h5.ray" / "answer").exists() == (not changed) == (actor._helper is not None)


# ---- processes of their own, each with a Ray of its own ----


def command(made, tiny_bert, cache, *more):
    arguments = ["extract", made / "table.csv", "-o", cache, "--model", tiny_bert, "--device", "cpu"]
    return [sys.executable, "-m", "embedcache", *map(str, [*arguments, "--pooling", "cls,mean", "--workers", 3, *more])]


@pytest.mark.slow
def test_the_command_prints_nothing_but_json(made, tiny_bert, tmp_path):
    process = subprocess.Popen(
        command(made, tiny_bert, tmp_path / "c.h5", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (pids := actors(process.pid)):
        time.sleep(0.1)
    os.kill(pids[0], signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["rows"] == ROWS and err == b""
    assert_same(contents(tmp_path / "c.h5"), contents(made / "one.h5"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_saves_and_ends_everything(made, tiny_bert, tmp_path, number):
    write_csv(tmp_path / "table.csv", [(f"{text} " * 8, label) for text, label in make_reviews(20_000)])
    arguments = command(tmp_path, tiny_bert, tmp_path / "c.h5")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "c.h5").exists() or open_cache(tmp_path / "c.h5").missing_rows() == 20_000:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and b"rows are saved in" in err, err
    assert not actors(process.pid) and sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "table.csv"]


@pytest.mark.slow
def test_a_killed_driver_leaves_a_file_to_go_on_with(made, tiny_bert, tmp_path):
    process = subprocess.Popen(command(made, tiny_bert, tmp_path / "c.h5"))
    while not (tmp_path / "c.h5").exists() or open_cache(tmp_path / "c.h5").missing_rows() == ROWS:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    subprocess.run(command(made, tiny_bert, tmp_path / "c.h5"), check=True)
    assert_same(contents(tmp_path / "c.h5"), contents(made / "one.h5"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5"]


@pytest.mark.slow
def test_many_kills(run, made, tmp_path):
    kill = Killer(500, 1500, 2500, 3500, 4500)
    run(progress=kill)
    assert kill.killed == 5
    assert_same(contents(tmp_path / "cache.h5"), contents(made / "one.h5"))


@pytest.mark.slow
def test_a_worker_that_always_dies_is_an_error_in_words(run, tmp_path, monkeypatch):
    def kill(*_):
        for pid in actors(os.getpid()):
            os.kill(pid, signal.SIGKILL)

    plain = workers.RayWorker.prepare

    def prepare(self, *arguments):
        prepared = plain(self, *arguments)
        kill()
        return prepared

    monkeypatch.setattr(workers.RayWorker, "prepare", prepare)
    with pytest.raises(EmbedcacheError, match=r"workers died repeatedly .* run the same extract again"):
        run(workers=1)
    assert not list(tmp_path.glob(".*.ray"))
