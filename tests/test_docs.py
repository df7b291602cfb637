"""The code on the pages of docs/ does what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_blocks_of_the_python_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    for block in blocks:
        lines_before = page[: block.start(1)].count("\n")
        exec(compile("\n" * lines_before + block[1], str(DOCS / "python.md"), "exec"), names)
    assert len(blocks) == page.count("```python") >= 5 and capsys.readouterr().out
    assert names["result"].best.val_accuracy > 0.85 and names["search"].best_score_ > 0.85
    assert names["loss"].item() < 0.5 and (tmp_path / "best.safetensors").exists()
