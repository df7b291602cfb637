"""The command line as its user meets it: what it makes, prints and counts."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedcache.cli import main
from embedcache.encoder.poolings import POOLINGS
from tests.conftest import POLYGLOT, document, invoke, make_reviews, write_csv


def test_json_fields_are_the_pinned_ones(made: Path, tiny_bert: Path, tmp_path: Path) -> None:
    report = document("extract", made / "reviews.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert)
    fields = "cache rows encoded reused duplicates truncated tokens seconds rows_per_second encoder".split()
    assert set(fields) <= set(report)
    assert (report["rows"], report["encoded"], report["truncated"]) == (205, 205, 0)
    info = document("info", made / "reviews.h5")
    assert set("rows dim poolings labels encoder fingerprint blocks complete".split()) <= set(info)
    assert (info["rows"], info["dim"], info["poolings"], info["complete"]) == (205, 32, sorted(POOLINGS), True)
    checked = document("verify", made / "reviews.h5")
    assert set("blocks damaged incomplete".split()) <= set(checked)
    assert checked["blocks"] > 0 and not checked["damaged"] and not checked["incomplete"]
    trained = document("train-head", made / "reviews.h5", "-o", tmp_path / "run", "--pooling", "mean", "--epochs", "3")
    assert set("run heads engine train_seconds head_rows_per_second split best baselines".split()) <= set(trained)
    assert set("name hyperparameters val_accuracy val_loss test_accuracy".split()) <= set(trained["best"])
    assert {"majority", "tfidf_logreg"} <= set(trained["baselines"])
    (labelled,) = document("predict", made / "run", "a great movie")
    assert set("text label probabilities".split()) <= set(labelled)
    assert sum(labelled["probabilities"].values()) == pytest.approx(1)
    found = document("search", made / "reviews.h5", "a great movie", "-k", "3")
    assert found["query"] == "a great movie"
    assert set("rank row score text labels id".split()) <= set(found["results"][0])


def test_every_combination_is_a_head(made: Path, tmp_path: Path) -> None:
    sweep = ["--hidden", "4,8", "--lr", "1e-3,1e-2", "--dropout", "0,0.1", "--weight-decay", "0,0.1", "--seed", "0,1,2"]
    assert document("train-head", made / "reviews.h5", "-o", tmp_path / "r", "--epochs", "1", *sweep)["heads"] == 48
    with (tmp_path / "r" / "leaderboard.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 48


def test_a_random_draw_from_ranges(made: Path, tmp_path: Path) -> None:
    draw = ["--lr", "1e-4:1e-1", "--hidden", "4:16", "--dropout", "0,0.2", "--seed", "0,1", "--random", "5"]
    trained = document("train-head", made / "reviews.h5", "-o", tmp_path / "r", "--epochs", "1", *draw)
    assert trained["heads"] == 10
    settings = trained["best"]["hyperparameters"]
    assert 1e-4 <= settings["lr"] <= 1e-1 and 4 <= settings["hidden"] <= 16 and settings["dropout"] in (0, 0.2)


def test_several_columns_from_the_table_to_the_report(extract: Any, tmp_path: Path) -> None:
    rows = [
        (text, label, '["long"]' if len(text) > 100 else "[]", str(len(text)))
        for text, label in make_reviews(120)
    ]  # fmt: skip
    table = write_csv(tmp_path / "t.csv", rows, ("text", "label", "tags", "size"))
    document(*extract(table, "--label", "label,tags", "--keep", "size"))
    train = ["train-head", tmp_path / "cache.h5", "-o", tmp_path / "run", "--epochs", "2", "--hidden", "0,8"]
    trained = document(*train, "--label", "label,tags")
    assert trained["heads"] == 4 and list(trained["columns"]) == ["label", "tags"]
    assert [one["kind"] for one in trained["columns"].values()] == ["classification", "multilabel"]
    for key in ("split", "best", "baselines"):
        assert trained[key] == trained["columns"]["label"][key]
    shown = invoke(*train, "--label", "label,tags").output
    assert "label: classification" in shown and "tags: multilabel" in shown
    number = document(*train, "--label", "size", "--task", "regression")
    assert number["kind"] == "regression" and "test_r2" in number["best"] and number["best"]["test_accuracy"] is None


def test_ctrl_c_saves_and_resume_goes_on(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    train = [
        "train-head",
        made / "reviews.h5",
        "-o",
        tmp_path / "run",
        "--epochs",
        "2",
        "--lr",
        "1e-3,1e-2",
        "--pooling",
        "cls",
    ]
    with monkeypatch.context() as patch:
        patch.setattr("embedcache.runs.column.run_baselines", stop)
        stopped = invoke(*train)
    assert stopped.exit_code == 130 and stopped.stdout == ""
    assert "2 of 2 heads are saved" in stopped.stderr and "--resume" in stopped.stderr
    assert stopped.stderr.count("\n") == 1
    resumed = invoke(*train, "--resume", "--json")
    assert resumed.exit_code == 0 and json.loads(resumed.stdout)["kept"] == 2, "stdout is JSON and nothing else"
    assert "2 of 2 heads are there already" in resumed.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_ends_as_a_shell_expects(name: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """130 after Ctrl-C, 143 after SIGTERM, and one line."""

    def stop(**options: Any) -> None:
        signal.raise_signal(number)
        raise AssertionError("the signal did not stop it")

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(main.commands[name], "callback", stop)
    monkeypatch.setattr(main.commands[name], "params", [])
    result = invoke(name)
    assert result.exit_code == 128 + number, result.output
    assert result.stderr == "Interrupted: nothing is half written; run the same command to start again.\n"
    assert result.stdout == "" and signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_in_a_process_of_its_own(made: Path, tmp_path: Path, number: int) -> None:
    """Sent while the engine works: the progress bar's place tells when, on a terminal."""
    command = [sys.executable, "-m", "embedcache", "train-head", made / "reviews.h5", "-o", tmp_path / "run"]
    command += ["--hidden", "1024", "--epochs", "400", "--seed", ",".join(map(str, range(60))), "--threads", "1"]
    import pty  # Windows has none

    terminal, stderr = pty.openpty()
    process = subprocess.Popen([*map(str, command)], stderr=stderr, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(stderr)
    seen = b""
    while b"3%" not in seen:  # two of the sixty heads are finished then
        seen += os.read(terminal, 1000)
    process.send_signal(number)
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(terminal, 1000):
            seen += part
    assert process.wait() == 128 + number
    assert "heads are saved in" in " ".join(seen.decode().split())
    assert [path.name for path in tmp_path.iterdir()] == [".run.unfinished.safetensors"]


def test_plain_output_is_for_people(made: Path, tiny_bert: Path, tmp_path: Path) -> None:
    text = invoke("extract", made / "reviews.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert).output
    assert "205" in text
    again = invoke("extract", made / "reviews.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert).output
    assert "nothing to encode" in again
    assert "complete" in invoke("info", tmp_path / "c.h5").output
    table = invoke("train-head", tmp_path / "c.h5", "-o", tmp_path / "run", "--epochs", "2").output
    assert "majority" in table and "TF-IDF" in table
    assert "positive" in invoke("predict", tmp_path / "run", "great").output + "negative"
    assert "0." in invoke("search", tmp_path / "c.h5", "--row", "0").output


def test_all_scripts_pass_through_everything(made: Path, tmp_path: Path) -> None:
    for text in POLYGLOT:
        # The tiny encoder's vocabulary is English: texts of as many unknown words are alike to it.
        found = document("search", made / "reviews.h5", text, "-k", "5")["results"]
        assert text in [one["text"] for one in found if one["score"] == pytest.approx(1, abs=1e-3)]
        assert document("predict", made / "run", text)[0]["text"] == text
    table = write_csv(tmp_path / "in.csv", [(text, "") for text in POLYGLOT])
    document("predict", made / "run", "--input", table, "-o", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == POLYGLOT


def test_where_and_row(made: Path) -> None:
    found = document("search", made / "reviews.h5", "great", "--where", "label=positive", "-k", "7")["results"]
    assert len(found) == 7 and {one["labels"]["label"] for one in found} == {"positive"}
    found = document("search", made / "reviews.h5", "--row", "3", "--where", "film=film 0", "-k", "99")["results"]
    assert {one["row"] for one in found} == {0, 1, 2, 4}


def test_k_larger_than_the_cache_gives_every_row(made: Path) -> None:
    assert len(document("search", made / "reviews.h5", "great", "-k", "100000")["results"]) == 205


def test_blank_texts_and_missing_labels_are_kept_and_counted(extract: Any, tmp_path: Path) -> None:
    rows = [*make_reviews(40), ("", "positive"), ("   ", "negative"), ("no label", ""), ("nor here", "NaN")]
    report = document(*extract(write_csv(tmp_path / "t.csv", rows)))
    assert report["rows"] == 44 and report["blank"] == 2
    trained = document("train-head", tmp_path / "cache.h5", "-o", tmp_path / "run", "--epochs", "1")
    assert sum(trained["split"][side] for side in ("train", "val", "test")) == 42


@pytest.mark.timeout(60)
def test_a_text_of_two_megabytes(extract: Any, tmp_path: Path) -> None:
    report = document(
        *extract(write_csv(tmp_path / "t.csv", [*make_reviews(9), ("great film " * 190_000, "positive")]))
    )
    assert (report["rows"], report["truncated"]) == (10, 1)


def test_long_texts_are_reported_as_truncated(extract: Any, tmp_path: Path) -> None:
    rows = [*make_reviews(10), ("film " * 300, "positive")]
    result = invoke(*extract(write_csv(tmp_path / "t.csv", rows), "--max-length", "64"))
    assert result.exit_code == 0 and "1 of 11 texts are longer than 64 tokens" in result.output.replace("\n", " ")
