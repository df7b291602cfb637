"""Epochs count from 1 wherever a person or a file sees them, and a best epoch of 0 says that there is none."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.commands.show.run import train_head as show
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.train import head_grid, train_heads
from embedcache.report import write_report
from embedcache.report.card import make_card
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.job import HeadReport, train_head
from embedcache.runs.resume import find_heads, save_unfinished
from embedcache.runs.tables import read_history, read_leaderboard
from embedcache.serve.leaderboard import read_board
from tests.runs.caches import make_labelled_cache

EPOCHS = 4


@pytest.fixture(scope="module", params=[None, 2], ids=["plain", "folds"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HeadReport:
    """The second rate has no epoch that comes to a finite end."""
    folder = tmp_path_factory.mktemp("epochs")
    cache = make_labelled_cache(folder / "cache.h5")
    return train_head(cache, folder / "run", hidden=4, lr=[1e-2, 1e30], epochs=EPOCHS, folds=request.param)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_files_of_a_run_count_alike(trained: HeadReport) -> None:
    run = load_run(trained.run)
    heads, info = load_heads(trained.run), json.loads((run.path / "run.json").read_text("utf-8"))
    assert info["format_version"] == 2
    good = {name: head for name, head in heads.items() if name.startswith("head-000")}
    for name, head in heads.items():
        losses = head.history["val_loss"]
        assert head.best_epoch == (int(np.argmin(losses)) + 1 if name in good else 0), name
        assert info["heads"][name]["best_epoch"] == head.best_epoch and info["heads"][name]["version"] == 2
    mean = np.mean([head.best_epoch for head in good.values()])
    board = rows(run.path / "leaderboard.csv")
    assert [float(row["best_epoch"]) for row in board] == [mean, 0]
    assert [row["best_epoch"] for row in read_leaderboard(run)] == [mean, 0]
    assert [row["best_epoch"] for row in trained.leaderboard] == [mean, 0]
    epochs = [int(row["epoch"]) for row in rows(run.path / "history.csv")]
    assert epochs == [row["epoch"] for row in read_history(run)] == list(range(1, EPOCHS + 1)) * len(good)
    kept = run.best.best_epoch  # after folds, that of the head that was trained again for so many epochs as were best
    assert kept == (round(mean) if len(good) > 1 else mean) == trained.best["best_epoch"] == info["best"]["best_epoch"]


def test_what_people_read_says_the_same(trained: HeadReport, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = load_run(trained.run)
    kept, mean = run.best.best_epoch, float(rows(run.path / "leaderboard.csv")[0]["best_epoch"])
    show(trained)
    assert re.search(rf"1 +head-000 +0\.01 +{mean:g} ", capsys.readouterr().out)
    assert f"Its weights are those of epoch {kept}." in make_card(run)
    assert f"epoch {kept} of {run.best.epochs_run}" in repr(run.best)
    assert f"{kept} of {run.best.epochs_run}, ok" in run.best._repr_html_()
    page = Path(write_report(trained.run, tmp_path / "r.html").report).read_text("utf-8")
    cells = re.sub(r"\s*<[^>]+>\s*", "|", page)
    assert re.search(rf"\|head-000\|+0\.01\|+{mean:g}\|", cells), "the leaderboard"
    curves = read_board(run)["label"]["curves"]["head-000"]["val_loss"]
    assert len(curves) == EPOCHS and None not in curves


def test_a_bank(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 6)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    result = train_heads(X[20:], y[20:], head_grid(lr=[1e-2, 1e30]), epochs=3, validation=(X[:20], y[:20]))
    best, none = result.heads
    assert best.best_epoch == int(np.argmin(result.history["val_loss"][0])) + 1 and none.best_epoch == 0
    assert result.to_arrow()["epoch"].to_pylist() == [best.best_epoch, None]
    assert result.to_arrow()["val_loss"].to_pylist() == [best.val_loss, None]
    assert best.val_loss == best.history["val_loss"][best.best_epoch - 1]
    assert train_heads(X, y, head_grid(), epochs=3).best.best_epoch == 3, "without validation rows the last one"


class TestHeadsOfBefore:
    """The first version counted from 0, with -1 for none."""

    @staticmethod
    def before(best: int) -> tuple[TrainedHead, dict[str, Any]]:
        weights = {"w2": np.zeros((2, 3), np.float32), "b2": np.zeros(2, np.float32)}
        head = TrainedHead(head_grid(hidden=0)[0], weights, best_epoch=best + 1, epochs_run=4)
        about = {**head.metadata(), "best_epoch": best}
        del about["version"]
        return head, about

    @pytest.mark.parametrize("best", [-1, 0, 3])
    def test_are_read(self, best: int) -> None:
        head, about = self.before(best)
        found = TrainedHead.from_metadata(about, head.weights)
        assert found.best_epoch == best + 1
        again = TrainedHead.from_metadata(found.metadata(), head.weights)
        assert again.best_epoch == best + 1 and again.metadata() == head.metadata()

    @pytest.mark.parametrize("best", [-2, 4, 1.5, "1", True, None])
    def test_are_checked(self, best: Any) -> None:
        head, about = self.before(0)
        with pytest.raises((EmbedcacheError, ValueError), match="best_epoch"):
            TrainedHead.from_metadata({**about, "best_epoch": best}, head.weights)

    def test_are_kept_of_an_interrupted_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        head, about = self.before(1)
        with monkeypatch.context() as then:
            then.setattr(TrainedHead, "metadata", lambda self: about)
            then.setattr("embedcache.runs.resume.VERSION", 1)
            save_unfinished(tmp_path / "run", {"a": head})
        kept = find_heads(tmp_path / "run", {"a"})
        assert not kept.notes and kept.heads["a"].best_epoch == 2
