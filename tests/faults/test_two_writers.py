"""Two commands that write one output at the same moment: each is done or is told in one line; the file is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Command


def commands(made: Path, folder: Path) -> dict[str, list[list[Any]]]:
    """Two commands each, whose outputs differ, without the output's place."""
    for name in ("first", "second"):
        rows = "".join(f"a {name} film {i}\n" for i in range(200))
        (folder / f"{name}.txt").write_text(rows, encoding="utf-8")
        (folder / f"{name}.csv").write_text(f"text\n{rows}", encoding="utf-8")
    both = ("first", "second")
    return {
        "predict": [["predict", made / "run", "--input", folder / f"{name}.csv"] for name in both],
        "search": [["search", made / "reviews.h5", "--file", folder / f"{name}.txt"] for name in both],
        "export": [["export", made / "run", "--overwrite", "--to", to] for to in ("torch", "sentence-transformers")],
        "report": [["report", made / "run"], ["report", made / "run", "--cache", made / "reviews.h5"]],
    }


def content(path: Path) -> dict[str, int] | bytes:
    """A file's bytes; of a folder the names and sizes."""
    if path.is_file():
        return path.read_bytes()
    return {str(one.relative_to(path)): one.stat().st_size for one in sorted(path.rglob("*")) if one.is_file()}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "rounds"),
    [
        ("predict", 1),
        *(pytest.param(kind, 20, marks=pytest.mark.slow) for kind in ("predict", "search", "export", "report")),
    ],
)
def test_two_at_once(made: Path, tmp_path: Path, kind: str, rounds: int) -> None:
    both = commands(made, tmp_path)[kind]
    place = tmp_path / "place"
    place.mkdir()
    out = place / {"export": "out", "report": "out.html"}.get(kind, "out.csv")
    alone = []
    for number, arguments in enumerate(both):
        single = tmp_path / f"alone-{number}" / out.name
        single.parent.mkdir()
        code, _, stderr = Command(*arguments, "-o", single).finish()
        assert code == 0, stderr
        alone.append(content(single))
    for _ in range(rounds):
        started = [Command(*arguments, "-o", out) for arguments in both]
        outcomes = [command.finish() for command in started]
        told = [stderr for code, _, stderr in outcomes if code]
        assert len(told) < 2, outcomes
        for line in told:
            last = line.splitlines()[-1]
            assert last.startswith("Error: ") and f"is writing {out}; wait until it ends, or" in last, line
            assert "Traceback" not in line
        found = content(out)
        assert (sorted(found) if isinstance(found, dict) else found) in (
            [sorted(one) if isinstance(one, dict) else one for one in alone]
        )
        assert [one.name for one in place.iterdir()] == [out.name]
