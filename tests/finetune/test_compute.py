"""compute: what "auto" is, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.finetune import compute
from embedcache.finetune.job import finetune
from embedcache.runs.folder import load_run
from tests.finetune.test_tuned_runs import cache, heads  # noqa: F401  fixtures

BEGINS = "layers are computed in float32"


@pytest.mark.parametrize("known", [True, False])
def test_auto_is_float32_on_a_cpu_and_bfloat16_on_a_gpu(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "cpu_computes_bfloat16", lambda: known)
    assert not compute.takes_bfloat16("auto", "cpu") and compute.takes_bfloat16("auto", "cuda:1")
    for device in ("cpu", "cuda:0"):
        assert compute.takes_bfloat16("bfloat16", device) and not compute.takes_bfloat16("float32", device)
    assert (compute.faster_compute("auto", "cpu") is not None) == known
    for chosen in (("auto", "cuda:0"), ("float32", "cpu"), ("bfloat16", "cpu")):
        assert compute.faster_compute(*chosen) is None


def test_a_faster_way_is_named_once_where_there_is_one(cache: Path, heads: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(compute, "cpu_computes_bfloat16", lambda: True)
    said: list[str] = []
    asked = {"train": ["full", "lora"], "from_run": heads, "epochs": 1, "tell": said.append}
    finetune(cache, tmp_path / "auto", **asked)
    assert sum(line.startswith(BEGINS) for line in said) == 1
    said.clear()
    report = finetune(cache, tmp_path / "chosen", compute="bfloat16", **asked)
    assert load_run(report.run).info["options"]["compute"] == "bfloat16"
    finetune(cache, tmp_path / "last", **{**asked, "train": "last"})  # the native engine: from cached states
    assert not any(line.startswith(BEGINS) for line in said)
    with pytest.raises(EmbedcacheError, match="--compute int8: layers are tuned in float32 or bfloat16"):
        finetune(cache, tmp_path / "no", compute="int8", **asked)
