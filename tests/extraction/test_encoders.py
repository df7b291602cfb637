"""Several encoders of one process, on what devices, and what a pass does without any work."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from embedcache.cache import open_cache, verify
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from embedcache.extraction import encoders as encoding_pass
from embedcache.extraction import local
from embedcache.extraction.encoders import Place
from embedcache.extraction.job import extract
from tests.conftest import make_reviews, write_csv
from tests.extraction.test_extract import assert_same, contents

ROWS = 6000


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rows = make_reviews(ROWS)
    for i in range(0, 2000, 41):
        rows[i + 3500] = rows[i]
    return write_csv(tmp_path_factory.mktemp("encoding") / "table.csv", rows)


def test_two_encoders_make_the_file_of_one(table, tiny_bert, tmp_path, monkeypatch):
    """Two on the CPU in place of two GPUs."""
    options = {"model": tiny_bert, "device": "cpu", "pooling": ("cls", "mean"), "batch_tokens": 500, "tokens": 1}
    extract(table, tmp_path / "one.h5", **options)
    encoders, shares = [], []
    load, prepare = Encoder.load, local.LocalWorker.prepare

    def loading(*arguments, **settings):
        encoders.append(load(*arguments, **{**settings, "device": "cpu"}))
        return encoders[-1]

    def preparing(self, window, tell):
        shares.append(self._encoder)
        return prepare(self, window, tell)

    monkeypatch.setattr(Encoder, "load", loading)
    monkeypatch.setattr(local.LocalWorker, "prepare", preparing)
    monkeypatch.setattr(encoding_pass.Place, "devices", lambda self: ["cpu", "cpu"])
    calls = []
    report = extract(table, tmp_path / "two.h5", progress=lambda *call: calls.append(call), **options)
    assert len(encoders) == 2 and {id(one) for one in shares} == {id(one) for one in encoders}
    assert_same(contents(tmp_path / "two.h5"), contents(tmp_path / "one.h5"))
    with open_cache(tmp_path / "one.h5") as one, open_cache(tmp_path / "two.h5") as two:
        states = [cache.token_states().take(np.arange(ROWS)) for cache in (one, two)]
    for mine, theirs in zip(*states, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert verify(tmp_path / "two.h5").ok
    assert calls[-1] == (report.tokens, report.tokens, report.encoded) and calls == sorted(calls)


def test_the_devices_of_a_place(monkeypatch):
    assert Place().devices() == ["auto"] and Place("cuda:1").devices() == ["cuda:1"]
    assert Place("cuda:0,cuda:2").devices() == ["cuda:0", "cuda:2"]
    for count, expected in ((3, ["cuda:0", "cuda:1", "cuda:2"]), (1, ["cuda:0"]), (0, ["cuda"])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert Place("cuda:all").devices() == expected
    assert (Place().cluster, Place(workers=2).cluster, Place(ray="a:1", workers=2).cluster) == (None, "local", "a:1")


@pytest.mark.parametrize("device", ["cuda:0,cuda:0", "cpu,cpu", "cpu,cuda:0", "cuda,cuda:1", "cuda:0,", "cuda:0,all"])
def test_devices_that_make_no_list(table, tiny_bert, tmp_path, device):
    with pytest.raises(EmbedcacheError, match="name several GPUs as cuda:0,cuda:1, or all as cuda:all"):
        extract(table, tmp_path / "c.h5", model=tiny_bert, device=device)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda:all", "cuda:0,cuda:1"])
def test_gpus_that_are_not_there(table, tiny_bert, tmp_path, device):
    with pytest.raises(EmbedcacheError, match="PyTorch finds no CUDA device; use --device cpu"):
        extract(table, tmp_path / "c.h5", model=tiny_bert, device=device)
    assert not list(tmp_path.iterdir())


def test_a_window_is_larger_where_batches_do_not_matter(monkeypatch):
    monkeypatch.setattr(local, "CORES_PER_BLOCK", 4)
    assert local.window_blocks("cpu", False, 64) == 1 and local.window_blocks("cuda:1", False, 2) == 16
    assert local.window_blocks("cpu", True, 2) == 1 and local.window_blocks("cpu", True, 64) == 16


@pytest.mark.parametrize("options", ["", ", workers=3", ", ray='10.255.255.1:1'", ", shard='1/1'"])
def test_a_run_without_work_starts_nothing(table, tiny_bert, tmp_path, options):
    """Neither torch nor Ray; it could not reach this cluster."""
    first = {"shard": "1/1"} if "shard" in options else {}
    extract(table, tmp_path / "c.h5", model=tiny_bert, device="cpu", **first)
    code = (
        "import sys, embedcache as ec\n"
        f"report = ec.extract({str(table)!r}, {str(tmp_path / 'c.h5')!r}, model={str(tiny_bert)!r}{options})\n"
        "assert report.encoded == 0 and report.reused > 0\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
