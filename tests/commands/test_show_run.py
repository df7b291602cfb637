"""The screen after train-head: complete, readable at 80 columns, with nothing of the user's names obeyed."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from embedcache.commands.show.run import train_head
from embedcache.heads.spec import HeadSpec
from embedcache.runs.calibration import fit_temperature
from embedcache.runs.leaderboard import Spread
from embedcache.runs.metrics import evaluate

SETTINGS: dict[str, Any] = {
    "hidden": [8, 512],
    "lr": [1.23e-4, 1e-3],
    "dropout": [0.1, 0.25],
    "weight_decay": [0.01, 0.001],
    "label_smoothing": [0.0, 0.1],
    "schedule": ["constant", "cosine"],
    "warmup": [0.0, 0.05],
    "class_weight": ["none", "balanced"],
}


def make_column(classes: list[str], kind: str = "classification", swept: int = 2, **changes: Any) -> Any:
    """A report of ten heads that differ in the seed and the first settings."""
    rng = np.random.default_rng(0)
    n = 300
    y: np.ndarray = rng.integers(0, len(classes), n) if classes else rng.normal(size=n)
    outputs: np.ndarray = rng.normal(size=(n, len(classes))) if classes else y + rng.normal(0, 0.3, n)
    if kind == "classification":
        outputs[np.arange(n), y] += 2
    elif kind == "multilabel":
        y = (outputs + rng.normal(size=outputs.shape) > 0).astype(np.float32)
    temperature = fit_temperature(y, outputs, kind) if classes else None
    evaluation = evaluate(y, outputs, classes, kind, temperature=temperature, interval=True)
    main = "r2" if kind == "regression" else "accuracy"
    rows, spread = [], []
    for i in range(10):
        values = {name: values[i % 2] for name, values in list(SETTINGS.items())[:swept]}
        spec = HeadSpec(**values, seed=i).to_dict()
        scores = {"val_loss": 0.4 + i / 100, f"val_{main}": 0.8 - i / 100}
        rows.append({"rank": i + 1, "name": f"head-{i:03d}", **spec, **scores, "best_epoch": i + 1, "status": "ok"})
        if i < 2:
            spec.pop("seed")
            spread.append(Spread(spec, ["a"] * 5, main, 0.7, 0.012, 0.65, 0.75).to_dict())
    split = {"train": 1000, "val": 200, "test": 300, "group": None, "folds": None}
    best = {"name": "head-000", f"val_{main}": 0.8, f"test_{main}": evaluation.scores[main]}
    column = {
        "label": "label",
        "kind": kind,
        "classes": classes,
        "split": split,
        "best": best | {f"test_{main}_interval": list(evaluation.intervals[main] or ()), "compared_by": main},
        "evaluation": {"val": evaluation.to_dict(), "test": evaluation.to_dict()},
        "baselines": {"majority": {f"val_{main}": 0.5, f"test_{main}": 0.501}},
        "comparisons": [
            {"with": name, "metric": main, "difference": 0.02, "interval": [-0.01, 0.05], "within_noise": True}
            for name in ("majority", "tfidf_logreg")
        ],
        "leaderboard": rows,
        "spread": spread,
        "notes": ["something to know"],
    }
    return SimpleNamespace(**{**column, **changes})


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lines that a terminal of 80 columns gets."""

    def render(*columns: Any) -> list[str]:
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        named = {f"{i}": column for i, column in enumerate(columns)}
        train_head(
            SimpleNamespace(  # type: ignore[arg-type]
                run="run", heads=10, kept=0, train_seconds=1.0, head_rows_per_second=1e6, engine="native", columns=named
            )
        )
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()

    return render


def tables_fit(lines: list[str]) -> bool:
    """Sentences may wrap, a table's lines may not."""
    return all(cell_len(line.rstrip()) <= 80 for line in lines if re.search(r"  |───", line))


def test_a_linear_probe_has_no_dropout(shown: Any) -> None:
    """Its 0 beside the others' 0.1 is no column of the table."""
    column = make_column(["no", "yes"], swept=1)
    for row in column.leaderboard:
        row["hidden"], row["dropout"] = (0, 0.0) if row["rank"] % 2 else (8, 0.1)
    text = "\n".join(shown(column))
    assert re.search(r"rank +head +hidden +seed +epoch", text)
    assert "The same in all of these: lr 0.001, dropout 0.1, decay 0.01." in text
    for row in column.leaderboard:
        row["hidden"], row["dropout"] = 0, 0.0
    assert "The same in all of these: hidden 0, lr 0.001, decay 0.01." in "\n".join(shown(column))


def test_two_classes(shown: Any) -> None:
    lines = shown(make_column(["negative", "positive"]))
    text = "\n".join(lines)
    assert tables_fit(lines), text
    assert "Classification, 2 classes; 1,000 train, 200 val, 300 test rows" in lines
    for line in (r"head-000, chosen +0\.8000 +0\.\d{4} +0\.\d{3} to 0\.\d{3}", r"majority class +0\.5000 +0\.5010"):
        assert re.search(line, text), line
    assert re.search(r"rank +head +hidden +lr +seed +epoch +loss +acc", text)
    assert re.search(r" +1 +head-000 +8 +0\.000123 +0 +1 +0\.4000 +0\.8000", text)
    assert re.search(r" +10 +head-009 +512 +0\.001 +9 +10 +0\.4900 +0\.7100", text)
    compared = "head-000 is better than TF-IDF + logreg by 0.020 accuracy (95% interval -0.010 to 0.050: within noise)."
    assert compared in lines and "than majority" not in text
    assert "The same in all of these: dropout 0.1, decay 0.01." in lines
    assert re.search(r"hidden +lr +seeds +mean +std +lowest +highest", text)
    assert re.search(r"512 +0\.001 +5 +0\.7000 +0\.0120 +0\.6500 +0\.7500", text)
    assert re.search(r"positive +0\.\d{4} +0\.\d{4} +0\.\d{4} +\d+", text)
    assert re.search(r"label \\ predicted +negative +positive", text)
    assert re.search(r"Calibration: ECE 0\.\d{3} on the test rows, 0\.\d{3} with temperature \d\.\d\d \(fitted", text)
    assert "Note: something to know" in lines and "leaderboard.csv has every head." in lines[-1]


@pytest.mark.parametrize("swept", range(3, len(SETTINGS) + 1))
def test_wide_sweeps_are_told_in_one_column(shown: Any, swept: int) -> None:
    lines = shown(make_column(["no", "yes"], swept=swept))
    text = "\n".join(lines)
    assert tables_fit(lines), text
    for name in ("0.000123", "0.25", "balanced" if swept == len(SETTINGS) else "512"):
        assert name in text
    assert "…" not in text
    if swept == len(SETTINGS):
        assert "settings" in text and "weights none" not in text


def test_wide_names_get_numbers_in_the_matrix(shown: Any) -> None:
    lines = shown(make_column([f"a rather long name {i}" for i in range(9)] + ["素晴らしい映画" * 6]))
    text = "\n".join(lines)
    assert tables_fit(lines), text
    assert re.search(r"label \\ predicted +1 +2 +3 +4 +5 +6 +7 +8 +9 +10$", text, re.MULTILINE)
    assert re.search(r"^9 a rather long n… +\d", text, re.MULTILINE)


def test_many_classes_show_the_ends(shown: Any) -> None:
    text = "\n".join(shown(make_column([f"class {i}" for i in range(40)])))
    assert "the five best and the five worst of 40" in text and "label \\ predicted" not in text
    assert len(re.findall(r"^class \d+ +[01]\.", text, re.MULTILINE)) == 10
    assert re.search(r"Mixed up most \(rows\): class \d+ as class \d+ \(\d\),", text)


def test_few_of_many_classes_are_shown_once(shown: Any) -> None:
    column = make_column([f"class {i}" for i in range(40)])
    for one in column.evaluation["test"]["per_class"][7:]:
        one["support"] = 0
    text = "\n".join(shown(column))
    assert len(re.findall(r"^class \d+ +[01]\.", text, re.MULTILINE)) == 7 and "five worst" not in text


def test_several_labels_a_row(shown: Any) -> None:
    text = "\n".join(shown(make_column(["a", "b", "c"], "multilabel")))
    assert "Multilabel, 3 labels" in text and re.search(r"^label +precision", text, re.MULTILINE)
    assert "predicted" not in text and "Calibration: ECE" in text


def test_regression(shown: Any) -> None:
    lines = shown(make_column([], "regression"))
    text = "\n".join(lines)
    assert tables_fit(lines) and "Regression; 1,000 train" in text
    assert re.search(r"r2 +r2 +interval", text) and "Calibration" not in text
    assert "(validation r2)" in text


def test_without_test_rows_and_without_any(shown: Any) -> None:
    column = make_column(["a", "b"])
    column.evaluation["test"] = None
    column.best["test_accuracy"] = column.best["test_accuracy_interval"] = None
    column.comparisons = []
    column.baselines["majority"]["test_accuracy"] = None
    text = "\n".join(shown(column))
    assert "on the 300 validation rows:" in text and "test accuracy" not in text and "interval" not in text
    column.evaluation["val"] = None
    text = "\n".join(shown(column))
    assert "precision" not in text and "Calibration" not in text


def test_a_diverged_head_has_no_numbers(shown: Any) -> None:
    column = make_column(["a", "b"])
    column.leaderboard[-1] |= {"status": "diverged", "val_loss": None, "val_accuracy": None}
    assert any(re.search(r"head-009 .* - +- +-$", line) for line in shown(column))


def test_a_block_for_every_label_column(shown: Any) -> None:
    lines = shown(make_column(["a", "b"], label="genre"), make_column(["c", "d"], label="stars"))
    assert [line for line in lines if line.startswith("Label ")] == [
        "Label genre: classification, 2 classes; 1,000 train, 200 val, 300 test rows",
        "Label stars: classification, 2 classes; 1,000 train, 200 val, 300 test rows",
    ]


def test_names_are_never_obeyed(shown: Any) -> None:
    text = "\n".join(shown(make_column(["[bold]x[/bold]", "bell\x07 :smile:"])))
    assert "[bold]x[/bold]" in text and "\x07" not in text and ":smile:" in text


@pytest.mark.parametrize("wide", [False, True])
def test_both_intervals_where_they_fit(shown: Any, wide: bool) -> None:
    column = make_column(["negative", "positive"])
    name = "a long name of a chosen head" if wide else "head-000"
    column.best |= {"name": name, "test_macro_f1": 0.81, "test_macro_f1_interval": [0.7, 0.9], "test_groups": 44}
    column.split["group"] = "movie"
    lines = shown(column)
    assert tables_fit(lines) and any("0.8100" in line for line in lines)
    assert any("0.700 to 0.900" in line for line in lines) != wide
    assert any("grouped by movie (44 groups of it test)" in line for line in lines)
