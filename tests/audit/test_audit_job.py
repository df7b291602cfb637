"""audit_cache: flipped labels come first, copies vouch for nothing, what cannot be judged is counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from embedcache.audit.report import FIELDS
from tests.audit.rows import flip, make_rows
from tests.conftest import make_cache


def test_flipped_labels_come_first(noisy: tuple[Path, np.ndarray]) -> None:
    path, flipped = noisy
    report = ec.audit(path)
    first = [one.row for one in report.labels[: flipped.sum()]]
    assert flipped[first].mean() > 0.8
    assert [one.score for one in report.labels] == sorted((one.score for one in report.labels), reverse=True)
    assert report.judged == report.rows == 400 and report.not_judged == {}
    disagreed = [one for one in report.labels if one.suggested_probability > one.probability]
    assert flipped.sum() / 2 < len(disagreed) < 400
    for one in report.labels:
        assert one.suggested != one.label
        assert one.score == pytest.approx(1 - one.probability)
    assert report.agreement == pytest.approx(1 - len(disagreed) / 400)
    assert set(report.weights) == {"heads", "neighbours", "words"} and min(report.weights.values()) >= 0


def test_the_same_command_finds_the_same(noisy: tuple[Path, np.ndarray]) -> None:
    one, two = (ec.audit(noisy[0], seed=(3, 4)).to_dict() for _ in range(2))
    assert one["seeds"] == [3, 4]
    del one["seconds"], two["seconds"]
    assert one == two


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_mean_vectors_are_taken_where_they_are_stored(tmp_path: Path, pooling: str) -> None:
    texts, x, labels = make_rows(100)
    path = make_cache(tmp_path / "c.h5", texts, {"cls": x, "mean": x + 1}, {"label": labels})
    assert ec.audit(path).pooling == "mean"
    assert ec.audit(path, pooling=pooling).pooling == pooling


def test_copies_of_a_text_vouch_for_nothing(tmp_path: Path) -> None:
    texts, x, labels = make_rows(200)
    wrong = "bad" if labels[0] == "good" else "good"
    texts += [texts[0]] * 30
    x = np.concatenate([x, np.repeat(x[:1], 30, axis=0)])
    labels = [wrong, *labels[1:], *[wrong] * 30]  # all 31 copies are labelled wrongly
    report = ec.audit(make_cache(tmp_path / "c.h5", texts, x, {"label": labels}))
    assert {0, *range(200, 230)} <= {one.row for one in report.labels}


def test_a_group_does_not_vouch_for_itself(tmp_path: Path) -> None:
    texts, x, labels = make_rows(200)
    rng = np.random.default_rng(5)
    mine = np.flatnonzero(np.array(labels) == "good")[:12]
    x[mine] = x[mine[0]] + 0.01 * rng.standard_normal((12, 16))  # a film's reviews, all alike, all labelled wrongly
    labels = ["bad" if i in mine else label for i, label in enumerate(labels)]
    columns = {"film": ["one" if i in mine else f"film {i // 10}" for i in range(200)]}
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels}, columns=columns)
    assert not set(mine) <= {one.row for one in ec.audit(path).labels}
    assert set(mine) <= {one.row for one in ec.audit(path, group="film").labels}


def test_what_is_not_judged_is_counted(tmp_path: Path) -> None:
    texts, x, labels = make_rows(120)
    texts[3], texts[4] = "  ", ""
    x[7] = np.nan
    given = [None if i in (10, 11, 12) else label for i, label in enumerate(labels)]
    given[20] = given[21] = "rare"
    report = ec.audit(make_cache(tmp_path / "c.h5", texts, x, {"label": given}))
    assert report.not_judged == {
        "without a label": 3,
        "with a blank text": 2,
        "without a usable vector": 1,
        "of a class with fewer than 5 rows": 2,
    }
    assert report.judged == 120 - 8
    assert not {3, 4, 7, 10, 11, 12, 20, 21} & {one.row for one in report.labels}
    assert all(one.suggested in ("good", "bad") for one in report.labels)
    assert "rare" in report.notes[0] and report.classes == ["bad", "good", "rare"]


def test_many_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(20), [5 + 2 * c for c in range(20)])
    x = (rng.standard_normal((20, 24))[codes] + 0.3 * rng.standard_normal((len(codes), 24))).astype(np.float16)
    texts = [f"word{c} and {i}" for i, c in enumerate(codes)]
    labels, flipped = flip([f"class {c}" for c in codes])
    report = ec.audit(make_cache(tmp_path / "c.h5", texts, x, {"label": labels}))
    first = [one.row for one in report.labels[: flipped.sum()]]
    assert flipped[first].mean() > 0.8


def test_texts_without_common_words(tmp_path: Path) -> None:
    _, x, labels = make_rows(100)
    report = ec.audit(make_cache(tmp_path / "c.h5", [f"w{i}" for i in range(100)], x, {"label": labels}))
    assert set(report.weights) == {"heads", "neighbours"} and "no words in common" in report.notes[0]
    assert all(one.words is None for one in report.labels)


def test_the_csv_and_the_json(noisy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    report = ec.audit(noisy[0], output=out, split="part", top=4)
    with out.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == FIELDS
    labels = [line for line in lines if line["issue"] == "label"]
    assert [int(line["row"]) for line in labels] == [one.row for one in report.labels] and len(labels) == 4
    assert report.found["label"] > 4
    with ec.open_cache(noisy[0]) as cache:
        codes, classes = cache.labels("label")
        for line in lines:
            row = int(line["row"])
            assert (line["text"], line["label"]) == (cache.texts[row], classes[codes[row]])
            assert line["split"] == cache.column("part")[row]
    assert json.loads((tmp_path / "audit.json").read_text("utf-8")) == report.to_dict()


def test_duplicates_across_the_sides_of_a_run(tmp_path: Path) -> None:
    texts, x, labels = make_rows(300)
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels})
    from embedcache.runs.job import train_head

    train_head(path, tmp_path / "run", epochs=1, hidden=[0])
    sides = ec.audit(path, run=tmp_path / "run", top=300).labels
    assert {one.split for one in sides} <= {"train", "val", "test"}
    from embedcache.audit.sides import run_sides

    with ec.open_cache(path) as cache:
        found = run_sides(cache, tmp_path / "run", None)
    split = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["split"]
    assert np.bincount(found.codes).tolist() == [split[side] for side in ("train", "val", "test")]


def test_a_note_says_how_many_labels_a_tuned_encoder_has_seen(tmp_path: Path) -> None:
    from embedcache.audit.sides import tuned_note
    from embedcache.runs.job import train_head

    texts, x, labels = make_rows(200)
    identity = {"architecture": "bert", "max_length": 64, "compute_dtype": "float32"}
    about = {"identity": identity, "source": str(tmp_path / "run")}
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels}, encoder=about)
    split = train_head(path, tmp_path / "run", epochs=1, hidden=[0], val=0.2, test=0.3).split
    with ec.open_cache(path) as cache:
        assert tuned_note(cache) is None
    about["identity"] = {**identity, "tuned": "ab" * 32}
    tuned = make_cache(tmp_path / "d.h5", [*texts, "new"], [*x, x[0]], {"label": [*labels, None]}, encoder=about)
    with ec.open_cache(tuned) as cache:
        assert "labels of rows of the run that is no longer there, so" in str(tuned_note(cache))
    told = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    told["encoder"]["identity"] = about["identity"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(told))
    assert f"tuned on the labels of {split['train']:,} of these rows, so its vectors" in ec.audit(tuned).notes[0]


def test_a_run_of_other_rows_is_refused(tmp_path: Path) -> None:
    from embedcache.runs.job import train_head

    texts, x, labels = make_rows(120)
    path = make_cache(tmp_path / "c.h5", texts, x, {"label": labels})
    train_head(path, tmp_path / "run", epochs=1, hidden=[0])
    other = make_cache(tmp_path / "d.h5", [f"another {i}" for i in range(120)], x, {"label": labels})
    with pytest.raises(ec.EmbedcacheError, match="other texts"):
        ec.audit(other, run=tmp_path / "run")


def test_the_sides_of_a_run_are_known_when_rows_came_and_went(tmp_path: Path) -> None:
    from embedcache.audit.sides import run_sides
    from embedcache.runs.job import train_head

    texts, x, labels = make_rows(140)
    path = make_cache(tmp_path / "c.h5", texts[:120], x[:120], {"label": labels[:120]})
    train_head(path, tmp_path / "run", epochs=1, hidden=[0])
    with ec.open_cache(path) as cache:
        before = dict(zip(texts, run_sides(cache, tmp_path / "run", None).codes.tolist(), strict=False))
    order = np.random.default_rng(0).permutation(140)[:130]
    changed = [labels[(i + 1) % 140] for i in order]
    other = make_cache(tmp_path / "d.h5", [texts[i] for i in order], x[order], {"label": changed})
    with ec.open_cache(other) as cache:
        codes = run_sides(cache, tmp_path / "run", None).codes
    assert len(set(codes)) == 4
    for i, code in zip(order, codes.tolist(), strict=True):
        assert code == before.get(texts[i], -1)


@pytest.mark.parametrize("n", [50, 51, 64])
def test_few_rows(tmp_path: Path, n: int) -> None:
    texts, x, labels = make_rows(n)
    report = ec.audit(make_cache(tmp_path / "c.h5", texts, x, {"label": labels}), neighbours=1000)
    assert report.judged == n and report.neighbours == n - 1


def test_nothing_is_left_in_the_folder(noisy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    before = set(noisy[0].parent.iterdir())
    ec.audit(noisy[0], output=tmp_path / "a.csv")
    assert set(noisy[0].parent.iterdir()) - before == {tmp_path / "a.csv", tmp_path / "a.json"}


def test_as_a_data_frame_and_in_a_notebook(tmp_path: Path) -> None:
    texts, x, labels = make_rows(60)
    texts[0] = "<script>alert(1)</script>"
    labels[0] = "bad" if labels[0] == "good" else "good"
    report = ec.audit(make_cache(tmp_path / "c.h5", texts, x, {"label": labels}))
    frame = report.to_pandas()
    assert tuple(frame.columns) == FIELDS and len(frame) == len(report.records())
    html = report._repr_html_()
    assert report.labels[0].row == 0 and "&lt;script&gt;" in html and "<script" not in html


def test_more_than_the_memory_is_refused(noisy: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is compared or trained."""
    monkeypatch.setattr("embedcache.common.machine.memory_free", lambda: 150e6)
    monkeypatch.setattr("embedcache.audit.job.find_nearest", None)
    with pytest.raises(
        ec.EmbedcacheError, match=r"words of 400 rows in 2 classes need about 20\d MB of memory, 150 MB"
    ):
        ec.audit(noisy[0])
