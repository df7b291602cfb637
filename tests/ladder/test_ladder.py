"""ladder: all rungs on the same rows, each done once, kept, and set side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedcache.cache import open_cache
from embedcache.cache.state_files import StateFiles
from embedcache.errors import EmbedcacheError
from embedcache.finetune.compute import FASTER
from embedcache.heads.kinds import kind_of
from embedcache.ladder import job
from embedcache.ladder.child import work
from embedcache.ladder.job import ladder
from embedcache.ladder.outcome import LadderReport
from embedcache.ladder.rows import AskedRows, CommonRows
from embedcache.ladder.table import copy_table
from embedcache.runs.folder import load_run
from embedcache.runs.intervals import score_interval
from embedcache.runs.metrics import evaluate
from embedcache.runs.predictions import FILE
from embedcache.tables import rows
from tests.conftest import fails, write_csv
from tests.ladder.conftest import FILM, SCRIPT

FAST = ("tfidf", "zero-shot", "head")
Launches = list[tuple[str, str]]
SMALL = {"test": 0.3, "max_length": 64, "resume": True}


def here(told: Launches) -> Callable[..., dict[str, Any]]:
    """As launch, in this process: a step's arguments and findings pass through JSON all the same."""

    def launch(kind: str, values: dict[str, Any], progress: Any, tell: Any) -> dict[str, Any]:
        told.append((kind, values.get("rung", "")))
        task = json.loads(json.dumps({"kind": kind, "values": values}))
        found: dict[str, Any] = json.loads(json.dumps(work(task, progress, tell), allow_nan=False))
        return found

    return launch


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """The steps that were started, (kind, rung) each."""
    found: Launches = []
    monkeypatch.setattr(job, "launch", here(found))
    return found


@pytest.fixture(scope="module")
def climbed(table: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LadderReport, Launches]:
    """A ladder that several tests look at, and its steps."""
    launches: Launches = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "launch", here(launches))
        folder = tmp_path_factory.mktemp("climbed") / "ladder"
        report = ladder(table, folder, rungs=FAST, model=str(tiny_bert), group=FILM, test=0.3)
    return report, launches


def test_every_rung_is_scored_on_the_same_rows(climbed) -> None:
    report, _ = climbed
    with open_cache(report.encoders[0]["cache"]) as cache:
        truth = np.array(cache.labels("label")[0])
        films = np.array(list(cache.column(FILM)))
    sides = []
    for one in report.rungs:
        if one.run is not None:
            stored = pq.read_table(Path(one.run) / FILE)
            sides.append(stored["side"].to_pylist())
            rows = np.array(sides[-1]) == "test"
            right = (
                np.array(stored["predicted"].to_pylist(), object)[rows]
                == np.array(stored["label"].to_pylist(), object)[rows]
            )
            assert one.test_accuracy == pytest.approx(right.mean())  # as the run itself was judged
            assert one.test_accuracy == load_run(one.run).info["best"]["test_accuracy"]
            assert list(one.interval) == load_run(one.run).info["best"]["test_accuracy_interval"]
    assert len(sides) == 1
    by_side = {side: set(films[np.array(sides[0]) == side]) for side in ("train", "val", "test")}
    assert not by_side["train"] & by_side["test"] and not by_side["val"] & by_side["test"]
    test = np.array(sides[0]) == "test"
    majority = np.bincount(truth[np.array(sides[0]) == "train"]).argmax()
    assert report.rungs[0].test_accuracy == pytest.approx((truth[test] == majority).mean())
    assert report.rows["test"] == test.sum() and report.test_groups == len(by_side["test"])


def test_the_baseline_is_that_of_the_runs(climbed) -> None:
    report, _ = climbed
    by_name = {one.rung: one for one in report.rungs}
    baselines = load_run(by_name["head"].run).info["baselines"]
    assert by_name["tfidf"].test_accuracy == baselines["tfidf_logreg"]["test_accuracy"]
    assert by_name["majority"].test_accuracy == baselines["majority"]["test_accuracy"]


def test_what_the_json_holds(climbed) -> None:
    report, launches = climbed
    document = json.loads((Path(report.output) / "ladder.json").read_text("utf-8"))
    assert document == json.loads(json.dumps(report.to_dict(), allow_nan=False))
    pinned = "rung trained parameters test_accuracy interval p_over_previous seconds_once seconds peak_memory disk "
    assert all(set(f"{pinned} predictions_per_second".split()) <= set(one) for one in document["rungs"])
    assert [one["rung"] for one in document["rungs"]] == ["majority", *FAST]
    assert [one["below"] for one in document["rungs"]] == [None, "majority", "tfidf", "zero-shot"]
    assert document["stop_at"] in [one["name"] for one in document["rungs"]]
    head = document["rungs"][3]
    hidden = load_run(head["run"]).best.spec.hidden
    assert head["parameters"] == (33 * hidden + 2 * (hidden + 1) if hidden else 2 * 33)
    assert head["seconds_once"] > 0 and head["predictions_per_second"] > 0 and head["disk"] > 0
    assert document["plan"]["seconds"] > 0
    assert launches == [("measure", ""), ("extract", ""), *(("climb", rung) for rung in ("majority", *FAST))]


def test_the_page_holds_no_text_as_html(climbed) -> None:
    page = (Path(climbed[0].output) / "ladder.html").read_text("utf-8")
    assert SCRIPT not in page and "<script" not in page and "Content-Security-Policy" in page
    assert FILM not in page and "&lt;b&gt;film&lt;/b&gt;" in page
    assert "Stop at" in page and "p &lt; 0.05" in page


@pytest.mark.slow
def test_a_rung_is_scored_once(table, climbed, tmp_path, told, monkeypatch) -> None:
    """And a cache gives what its table gave."""
    from embedcache.runs import column

    seen: list[int] = []

    def counted(y: np.ndarray, *others: Any, **more: Any) -> Any:
        seen.append(len(y))
        return evaluate(y, *others, **more)

    monkeypatch.setattr(column, "evaluate", counted)
    report = ladder(climbed[0].encoders[0]["cache"], tmp_path / "ladder", rungs=["head"], group=FILM, test=0.3, val=0.1)
    assert report.rows["test"] != report.rows["val"]
    assert seen.count(report.rows["test"]) == 1
    assert report.rungs[1].test_accuracy == climbed[0].rungs[3].test_accuracy  # of a cache as of its table
    assert report.rungs[1].seconds_once is None


def test_what_is_done_is_not_done_again(climbed, tmp_path, told, monkeypatch) -> None:
    cache, folder = climbed[0].encoders[0]["cache"], tmp_path / "ladder"
    launch, rungs = job.launch, ["zero-shot", "tfidf"]

    def dies(kind: str, values: dict[str, Any], *others: Any) -> dict[str, Any]:
        if values.get("rung") == "tfidf":
            raise KeyboardInterrupt
        return launch(kind, values, *others)

    monkeypatch.setattr(job, "launch", dies)
    with pytest.raises(KeyboardInterrupt):
        ladder(cache, folder, rungs=rungs, group=FILM, test=0.3)
    monkeypatch.setattr(job, "launch", launch)
    told.clear()
    with pytest.raises(EmbedcacheError, match="holds a ladder: --resume goes on"):
        ladder(cache, folder, rungs=rungs, group=FILM, test=0.3)
    with pytest.raises(EmbedcacheError, match="begun with another seed: resume with the same"):
        ladder(cache, folder, rungs=rungs, group=FILM, test=0.3, seed=7, resume=True)
    done = folder / climbed[0].encoders[0]["name"] / "zero-shot.json"
    when = done.stat().st_mtime_ns
    ladder(cache, folder, rungs=rungs, group=FILM, test=0.3, resume=True)
    assert told == [("measure", ""), ("climb", "tfidf")] and done.stat().st_mtime_ns == when
    told.clear()
    again = ladder(cache, folder, rungs=rungs, group=FILM, test=0.3, resume=True)
    assert told == []
    assert [one.test_accuracy for one in again.rungs] == [climbed[0].rungs[i].test_accuracy for i in (0, 2, 1)]


def test_several_seeds_share_the_rows(climbed, tmp_path, told) -> None:
    """A seed may be added; the score is the mean, its interval and gains are those of the seeds' predictions."""
    cache, folder = climbed[0].encoders[0]["cache"], tmp_path / "ladder"
    asked: dict[str, Any] = {"rungs": ["tfidf", "head"], "group": FILM, "test": 0.3}
    alone = ladder(cache, folder, seed=5, **asked)
    told.clear()
    report = ladder(cache, folder, seed=(5, 6), resume=True, **asked)
    assert told == [("measure", ""), ("climb", "head")] and report.seeds == [5, 6] and report.seed == 5
    head = report.rungs[2]
    runs = [load_run(Path(head.run).with_name(name)) for name in ("head", "head-seed-6")]
    assert head.seeds == [5, 6] == [run.best.spec.seed for run in runs]
    assert runs[0].info["split"]["digests"] == runs[1].info["split"]["digests"]
    assert head.scores == [run.info["best"]["test_accuracy"] for run in runs] and head.scores[0] != head.scores[1]
    assert head.test_score == pytest.approx(np.mean(head.scores)) and head.scores[0] == alone.rungs[2].test_score
    said = [np.load(f"{run.path}.npy") for run in runs]
    with open_cache(cache) as opened:
        rows = CommonRows.read(opened, AskedRows(None, "auto", FILM, 5, 0.1, 0.3))
    assert head.interval == score_interval("accuracy", rows.y, said, rows.groups)
    assert head.gain == pytest.approx(head.test_score - report.rungs[1].test_score)
    assert report.rungs[1].seeds == [] and report.rungs[1].scores == [report.rungs[1].test_score]
    page = (folder / "ladder.html").read_text("utf-8")
    low, high = sorted(head.scores)
    assert "of 2 seeds" in page and f"{low:.4f} to {high:.4f}" in page
    assert any("not other seeds" in note for note in report.notes)
    for seeds in ((), (5, 5), (-1,)):
        with pytest.raises(EmbedcacheError, match="--seed: give different whole numbers"):
            ladder(cache, folder, seed=seeds, resume=True, **asked)


@pytest.mark.slow
def test_tuned_rungs_have_the_rows_of_the_head(table, tiny_bert, tmp_path, told, monkeypatch) -> None:
    """They start from its head; one that is killed between its run and what is known of it is not done again."""
    from embedcache.finetune import prepare
    from embedcache.ladder import steps

    trained: list[str] = []

    def counted(column: Any, *others: Any) -> Any:
        trained.append(column.data.pooling)
        return train_start(column, *others)

    train_start = prepare.train_start
    monkeypatch.setattr(prepare, "train_start", counted)
    rungs = ["head", "last", "adapter", "full"]
    report = ladder(table, tmp_path / "l", rungs=rungs, model=str(tiny_bert), group=FILM, test=0.3)
    sides = [pq.read_table(Path(one.run) / FILE)["side"].to_pylist() for one in report.rungs[1:]]
    assert len(sides) == 4 and all(one == sides[0] for one in sides)
    assert trained == []  # tiny BERT has cls alone, which is what the head rung reads
    head = report.rungs[1].run
    assert all(load_run(one.run).info["tuned"]["start"]["run"] == head for one in report.rungs[2:])
    alone = ladder(table, tmp_path / "a", rungs=["last"], model=str(tiny_bert), group=FILM, test=0.3)
    assert trained == ["cls"] and load_run(alone.rungs[1].run).info["tuned"]["start"]["run"] is None
    last = load_run(report.rungs[2].run)
    assert report.rungs[2].parameters == last.info["tuned"]["parameters"] + report.rungs[1].parameters
    Path(f"{report.rungs[2].run}.json").unlink()
    monkeypatch.setattr(steps, "finetune", None)
    again = ladder(table, tmp_path / "l", rungs=rungs, model=str(tiny_bert), group=FILM, test=0.3, resume=True)
    assert again.rungs[2].test_accuracy == report.rungs[2].test_accuracy


def test_compute_is_that_of_all_tuned_rungs(table, tiny_bert, tmp_path, told, monkeypatch) -> None:
    monkeypatch.setattr("embedcache.finetune.compute.cpu_computes_bfloat16", lambda: True)
    said: list[str] = []
    settings: dict[str, Any] = {"rungs": ["full"], "model": str(tiny_bert), "group": FILM, "test": 0.3}
    report = ladder(table, tmp_path / "l", compute="bfloat16", tell=said.append, **settings)
    assert not any(FASTER in line for line in said)
    assert load_run(report.rungs[1].run).info["options"]["compute"] == "bfloat16"
    with pytest.raises(EmbedcacheError, match="was begun with another compute"):
        ladder(table, tmp_path / "l", resume=True, **settings)
    with pytest.raises(EmbedcacheError, match="--compute int8"):
        ladder(table, tmp_path / "n", compute="int8", **settings)
    ladder(table, tmp_path / "a", tell=said.append, seed=(42, 1), **settings)
    assert sum(FASTER in line for line in said) == 1  # with the plan, not with each training
    old = tmp_path / "l" / "settings.json"  # of a version that had no such setting
    before = json.loads(old.read_text())
    assert before.pop("compute") == "bfloat16"
    old.write_text(json.dumps(before))
    with pytest.raises(EmbedcacheError, match="was begun with another compute"):
        ladder(table, tmp_path / "l", resume=True, compute="bfloat16", **settings)
    assert ladder(table, tmp_path / "l", resume=True, **settings).rungs[1].run == report.rungs[1].run


@pytest.mark.slow
def test_several_encoders_and_numbers(table, tiny_bert, tiny_models, tmp_path, told, monkeypatch) -> None:
    read: list[str] = []

    def counted(source: Any, *others: Any) -> Any:
        read.append(str(source.path))
        return read_batches(source, *others)

    read_batches = rows.read_batches
    monkeypatch.setattr(rows, "read_batches", counted)
    models = [str(tiny_bert), str(tiny_models["roberta"])]
    report = ladder(table, tmp_path / "two", rungs=["tfidf", "head", "lora"], model=models, test=0.3, max_length=64)
    assert read.count(str(table)) == 1 and not list((tmp_path / "two").glob(".table*"))
    names = [one["name"] for one in report.encoders]
    assert [(one.rung, one.encoder) for one in report.rungs] == [
        ("majority", None), ("tfidf", None), *((rung, name) for rung in ("head", "lora") for name in names)
    ]  # fmt: skip
    below = [one.below for one in report.rungs]
    assert below[2:] == ["tfidf", "tfidf", f"head ({names[0]})", f"head ({names[1]})"]
    numbers = ladder(table, tmp_path / "n", model=str(tiny_bert), label="long", task="regression", test=0.3,
                     rungs=["tfidf", "head", "top:2"])  # fmt: skip
    assert numbers.metric == kind_of("regression").main == "r2" and numbers.rungs[0].test_accuracy is None
    head = load_run(numbers.rungs[2].run)
    assert numbers.rungs[2].test_score == pytest.approx(head.info["best"]["test_r2"], abs=1e-5)
    assert numbers.rungs[1].test_score == pytest.approx(head.info["baselines"]["tfidf_ridge"]["test_r2"], abs=1e-6)


def test_a_deeper_rung_is_added_to_a_ladder(table: Path, tiny_bert: Path, tmp_path: Path, told: Launches) -> None:
    first = ladder(table, tmp_path / "l", rungs=["head", "last"], model=str(tiny_bert), **SMALL)
    told.clear()
    report = ladder(table, tmp_path / "l", rungs=["head", "last", "top:2"], model=str(tiny_bert), **SMALL)
    assert [(kind, rung) for kind, rung in told if kind != "measure"] == [("extract", ""), ("climb", "top:2")]
    assert [one.test_score for one in report.rungs[:-1]] == [one.test_score for one in first.rungs]
    assert StateFiles(Path(report.encoders[0]["cache"])).about.layers == 2


def test_a_deeper_pass_that_was_killed_is_not_taken_for_the_one_before(
    table: Path, tiny_bert: Path, tmp_path: Path, told: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder(table, tmp_path / "l", rungs=["head", "last"], model=str(tiny_bert), **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("embedcache.ladder.steps.extract", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ladder(table, tmp_path / "l", rungs=["head", "last", "top:2"], model=str(tiny_bert), **SMALL)
    report = ladder(table, tmp_path / "l", rungs=["head", "last"], seed=[42, 1], model=str(tiny_bert), **SMALL)
    assert [one.seeds for one in report.rungs if one.rung == "last"] == [[42, 1]]


def test_the_copy_of_a_table_holds_what_the_table_holds(tmp_path) -> None:
    cells = [
        ("", "[]", "NA"),
        ("a 'word'\n\"more\"", '["a", "b"]', "1.50"),
        ("\u2028é", "n/a", "[1]"),
        ("x", '["a"]', " "),
    ]
    path = write_csv(tmp_path / "t.csv", cells, ("text", "tags", "kept"))
    one, two = (
        list(rows.read_rows([source], rows.Columns(labels=("tags",), keep=("kept",))))
        for source in (path, copy_table(str(path), tmp_path, text="text", labels="tags", keep=["kept"]))
    )
    assert one[0].labels == two[0].labels == {"tags": [(), ("a", "b"), None, ("a",)]}
    assert one[0].texts.equals(two[0].texts) and one[0].keep["kept"].equals(two[0].keep["kept"])
    single = write_csv(tmp_path / "s.csv", [("a", "[x"), ("b", "NULL"), ("c", "")], ("text", "label"))
    found = list(rows.read_rows([copy_table(str(single), tmp_path, text="text", labels=None, keep=[])],
                                rows.Columns(labels=("label",))))  # fmt: skip
    assert found[0].labels == {"label": ["[x", None, None]}


def test_bad_input_is_one_line(table, climbed, tmp_path, tiny_bert, told) -> None:
    cache = climbed[0].encoders[0]["cache"]
    out = ["-o", tmp_path / "x"]
    line = fails("ladder", cache, *out, "--rungs", "head,middle")
    assert line.startswith("Error: --rungs middle: use majority, tfidf, zero-shot, head, last, top:K")
    assert "keeps token states of 0 layers: extract --tokens 2 adds" in fails("ladder", cache, *out, "--rungs", "top:2")
    assert "name one encoder or several with --model" in fails("ladder", table, *out)
    assert "has no label column 'stars'" in fails("ladder", cache, *out, "--label", "stars")
    assert "neutral" in fails("ladder", cache, *out, "--labels", "positive: good; negative: bad; neutral: so so")
    assert "leave no rows to train on" in fails("ladder", cache, *out, "--val", "0.5", "--test", "0.5")
    assert "made with a length of its own" in fails("ladder", cache, *out, "--max-length", "9")
    assert "is the cache of one encoder" in fails("ladder", cache, *out, "--model", "a,b")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    assert "is no ladder" in fails("ladder", cache, "-o", full, "--rungs", "head")
    assert (full / "notes.txt").read_text() == "mine" and not (tmp_path / "x").exists()
    assert told == []  # nothing was started for any of it


def test_a_plan_that_does_not_fit(climbed, tmp_path, told, monkeypatch) -> None:
    from embedcache.ladder import plan

    class Usage:
        free = 1000

    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: Usage)
    cache = climbed[0].encoders[0]["cache"]
    with pytest.raises(EmbedcacheError, match=r"needs about .* and 1 kB are free: name another -o, or fewer --rungs"):
        ladder(cache, tmp_path / "x", rungs=["head"], group=FILM, test=0.3)
    assert told == [("measure", "")]


def test_more_layers_than_there_are(table, tmp_path, tiny_bert, told) -> None:
    with pytest.raises(EmbedcacheError, match=r"--rungs top:3: .* has 2 layers"):
        ladder(table, tmp_path / "x", rungs=["top:3"], model=str(tiny_bert))
    assert told == [("measure", "")]
