"""Which engine trains a bank: one that computes as it was asked to, and if that is not the first choice, it is told."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads import engine_native
from embedcache.heads.engine import COMPUTES
from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options
from embedcache.heads.train import choose_engine
from tests.heads.cuda_emulation import make_task


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that finds a GPU."""
    there = SimpleNamespace(devices=lambda: 1, last_error=lambda: "", backend=lambda: "cuda")
    monkeypatch.setitem(engine_native._libraries, "cuda", there)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("device", "compute", "chosen"),
    [
        ("auto", "float32", "cuda:0"),
        ("auto", "tf32", "cuda:0"),
        ("auto", "bfloat16", "cuda:0"),
        ("cpu", "bfloat16", "cpu"),
        ("cuda", "tf32", "cuda:0"),
        ("cuda", "bfloat16", "cuda:0"),
    ],
)
def test_beside_a_gpu(device: str, compute: str, chosen: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine, options = choose_engine("native", device, Options(compute=compute))
    assert (options.device, engine.name.startswith("native-")) == (chosen, True)
    assert not caught


@pytest.mark.usefixtures("gpu")
def test_what_a_device_does_not_compute() -> None:
    for engine in ("native", "auto"):
        with pytest.raises(EmbedcacheError, match="native cpu engine computes in float32 or bfloat16, not in tf32"):
            choose_engine(engine, "cpu", Options(compute="tf32"))
    with pytest.raises(EmbedcacheError, match="torch engine computes in float32 or bfloat16, not in tf32"):
        choose_engine("torch", "auto", Options(compute="tf32"))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_libraries_compute_what_is_said_of_them(kind: str, emulation: NativeEngine) -> None:
    engine = emulation if kind == "cuda" else NativeEngine("cpu", 0)
    task, heads = make_task(n=8, val=0), [(HeadSpec(hidden=4), 0)]
    for compute in engine_native.COMPUTE:
        options = Options(epochs=1, compute=compute)
        if compute in COMPUTES[f"native {kind}"]:
            assert engine.train([task], heads, options, None)[0].status == "ok"
        else:
            with pytest.raises(EmbedcacheError, match="computes in float32 or"):
                engine.train([task], heads, options, None)
