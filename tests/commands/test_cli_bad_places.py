"""Bad words for where to encode: --device, --workers, --ray, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embedcache.cli import main
from tests.conftest import fails


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda:x"], "unknown device 'cuda:x'"),
        (["--device", "cuda:0,cpu"], "cuda:0,cuda:1"),
        (["--device", "cuda:0,cuda:0"], "cuda:0,cuda:1"),
        (["--device", ""], "unknown device ''"),
        (["--device", "cuda:0", "--workers", "2"], "use auto, cpu or cuda"),
        (["--device", "cuda:all", "--ray", "local"], "use auto, cpu or cuda"),
        (["--device", "tpu", "--ray", "local"], "use auto, cpu or cuda"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_places(extract: Any, reviews_csv: Path, tmp_path: Path, options: list[str], words: str) -> None:
    assert words in fails(*extract(reviews_csv, *options))
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.csv"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:99999999", "no-such-host.invalid:6379", "[::1]:1"])
def test_no_cluster_at_the_address(extract: Any, reviews_csv: Path, tmp_path: Path, address: str) -> None:
    line = fails(*extract(reviews_csv, "--ray", address))
    assert f"no Ray cluster answers at {address}" in line and "ray start --head" in line
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.csv"]


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:10001", ":6379", "host:port", ""])
def test_what_is_no_address(extract: Any, reviews_csv: Path, tmp_path: Path, address: str) -> None:
    assert "use local, auto, or HOST:PORT" in fails(*extract(reviews_csv, "--ray", address))
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.csv"]


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5"])
def test_wrong_numbers_of_workers(workers: str) -> None:
    fails("extract", "t.csv", "-o", "c.h5", "--workers", workers, code=2)


def test_help_shows_every_place() -> None:
    shown = CliRunner().invoke(main, ["extract", "--help"]).output
    for word in ("--device cuda:all", "--ray local --workers 4", "--shard 3/8", "--ray 10.0.0.1:6379"):
        assert word in shown
