"""What the command line says of how an input was understood: once, beside the output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import fails, invoke


def test_a_note_is_printed_once_and_beside_json(extract: Callable[..., list[Any]], tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text;label\na, b;good\nc;bad\n")
    done = invoke(*extract(path, "--json"))
    assert done.exit_code == 0 and json.loads(done.stdout)["rows"] == 2
    assert done.stderr.count(f"Note: {path} is separated by semicolons (--separator says otherwise)") == 1
    again = invoke(*extract(path, "--separator", ";"))
    assert again.exit_code == 0 and "Note" not in again.stderr


def test_wrong_options(extract: Callable[..., list[Any]], tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text;label\na;good\n")
    assert "is not one character such as ; or |" in fails(*extract(path, "--separator", ";;"))
    assert "it has: text;label; choose with --text" in fails(*extract(path, "--separator", ","))
