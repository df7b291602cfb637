"""zero-shot: what comes out, the scores beside scikit-learn's, resumed work, and what is refused in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.prompting.methods import METHODS, automatic
from tests.conftest import document, fails, invoke, write_csv

LABELS = "positive: a wonderful film; negative: a dull film"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_says_how_often_it_is_right(reviews_cache: Path, tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    out = tmp_path / "out.csv"
    report = document("zero-shot", reviews_cache, "--labels", LABELS, "-o", out, "--device", "cpu")
    rows = [row for row in read_csv(out) if row["label"]]
    y, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    scores = report["scores"]
    assert scores["rows"] == len(rows) == 38 and scores["unlabelled"] == 2 and report["rows"] == 40
    assert scores["scores"]["accuracy"]["value"] == pytest.approx(accuracy_score(y, predicted))
    assert scores["scores"]["macro_f1"]["value"] == pytest.approx(f1_score(y, predicted, average="macro"))
    low, high = scores["scores"]["accuracy"]["interval"]
    assert low < scores["scores"]["accuracy"]["value"] < high and scores["majority"] == pytest.approx(20 / 38)
    assert sum(report["labels"].values()) == 40 and "first" not in report
    shown = invoke("zero-shot", reviews_cache, "--labels", LABELS)
    assert f"accuracy {scores['scores']['accuracy']['value']:.3f} (" in shown.stdout
    assert "nothing was trained" in shown.stdout and "method similarity: cls vectors" in shown.stderr


def test_python_returns_what_the_command_prints(reviews_cache: Path, tmp_path: Path) -> None:
    where = "label=positive"
    printed = document("zero-shot", reviews_cache, "--labels", LABELS, "--where", where, "--label", "label")
    report = ec.zero_shot(reviews_cache, LABELS, where=where, label="label").to_dict()
    assert json.loads(json.dumps(report | {"seconds": 0})) == printed | {"seconds": 0} and report["rows"] == 18


def test_labels_that_were_not_named_count_as_wrong(reviews_cache: Path) -> None:
    report = ec.zero_shot(reviews_cache, {"positive": "a wonderful film", "other": "a dull film"})
    assert report.scores is not None and report.scores.unknown == {"negative": 20}
    assert any("20 rows have labels that were not named (negative)" in note for note in report.notes)


def test_what_cannot_be_scored_is_labelled_all_the_same(reviews_cache: Path, tmp_path: Path) -> None:
    said = invoke("zero-shot", reviews_cache, "--labels", "a: good; b: bad")
    assert said.exit_code == 0 and "accuracy" not in said.stdout
    assert "not scored: column 'label' of" in said.stderr and "has none of these labels ('a', 'b')" in said.stderr
    line = fails("zero-shot", reviews_cache, "--labels", "a: good; b: bad", "--label", "label")
    assert "name them as they stand there" in line
    table = write_csv(tmp_path / "t.csv", [("fine",), ("dull",)], ("text",))
    line = fails("zero-shot", table, "--labels", LABELS, "--group", "film", "--model", "x")
    assert "--group is for the scores" in line


def test_interrupted_work_continues(
    reviews_cache: Path, tiny_masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = METHODS["masked"]
    monkeypatch.setattr(masked, "cache_rows", 16)
    asked: dict[str, Any] = {"model": tiny_masked, "method": "masked", "device": "cpu"}
    words = "positive: great | superb; negative: dull"
    ec.zero_shot(reviews_cache, words, tmp_path / "whole.csv", **asked)
    finish, parts = masked.finish, []

    def stop_in_the_second(self: Any, prompts: Any, tell: Any) -> Any:
        parts.append(len(prompts))
        if parts.count(16) == 2:
            raise KeyboardInterrupt
        return finish(self, prompts, tell)

    monkeypatch.setattr(masked, "finish", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt, match="16 of 40 rows are labelled and saved"):
        ec.zero_shot(reviews_cache, words, tmp_path / "out.csv", **asked)
    monkeypatch.setattr(masked, "finish", finish)
    said: list[str] = []
    report = ec.zero_shot(reviews_cache, words, tmp_path / "out.csv", tell=said.append, **asked)
    assert report.resumed == 16 and any(line.startswith("16 of 40 rows are labelled already") for line in said)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    other = ec.zero_shot(reviews_cache, words, tmp_path / "out.csv", template="{text} All in all [MASK].", **asked)
    assert other.resumed == 0


def test_auto_goes_by_the_model(
    tiny_bert: Path, tiny_masked: Path, tiny_nli: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    found = [automatic(str(one)).name for one in (tiny_bert, tiny_masked, tiny_nli, tiny_causal)]
    assert found == ["similarity", "masked", "entailment", "causal"]


def test_refused_in_one_line(reviews_cache: Path, tiny_bert: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", [("fine", "a"), ("dull", "b")], ("text", "label"))
    ask = ["zero-shot", table, "--labels", LABELS]
    assert "name the model that labels it with --model" in fails(*ask)
    assert "no such folder" in fails(*ask, "--model", "./nowhere/at/all")
    assert "takes examples from a cache" in fails(*ask, "--model", tiny_bert, "--shots", 2)
    assert "and similarity has none" in fails("zero-shot", reviews_cache, "--labels", LABELS, "--shots", 2)
    line = fails(*ask, "--model", tiny_bert, "--method", "masked")
    assert "has no masked-language-model head: its weights lack" in line
    line = fails(*ask, "--model", tiny_bert, "--method", "causal")
    assert "is an encoder, not a causal model" in line
    line = fails(*ask, "--model", tiny_bert, "--method", "entailment")
    assert "needs a model of natural language inference" in line
    done = invoke(*ask, "--model", tiny_bert, "--method", "guess")
    assert done.exit_code == 2 and "similarity" in done.stderr
    assert invoke("zero-shot", table).exit_code == 2


def test_probabilities_add_up(tiny_masked: Path) -> None:
    from embedcache.prompting.method import softmax

    scores = np.array([[-1000.0, -1001.0], [3.0, 3.0]])
    assert np.allclose(softmax(scores).sum(axis=1), 1) and softmax(scores)[0, 0] > 0.7
