"""drift: AUC and its interval by hand, rows of one population and of two, shares, words, columns, the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import embedcache as ec
from embedcache.drift import domain
from embedcache.drift.calibrated import BiasCorrected
from embedcache.drift.domain import auc_with_variance, compare_domains
from embedcache.drift.labels import estimate_shares, label_shift, new_shares
from embedcache.drift.traits import compare_columns, compare_words
from embedcache.errors import EmbedcacheError
from embedcache.runs.calibration import fit_temperature, probabilities
from tests.conftest import document, fails, invoke, make_cache, make_reviews, write_csv

RNG = np.random.default_rng(0)


def hashes(n: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, 16)).astype(np.uint8)


# ---- told apart ----


def test_the_auc_is_scikit_learns_and_its_variance_that_of_resampling() -> None:
    old, new = RNG.normal(size=150).round(1), (RNG.normal(size=90) + 0.5).round(1)  # with ties
    auc, variance = auc_with_variance(old, new)
    y = np.repeat([0, 1], [150, 90])
    assert auc == pytest.approx(roc_auc_score(y, np.concatenate([old, new])))
    drawn = [
        auc_with_variance(RNG.choice(old, 150), RNG.choice(new, 90))[0]
        for _ in range(2000)
    ]  # fmt: skip
    assert variance**0.5 == pytest.approx(np.std(drawn), rel=0.08)


def test_rows_of_one_population_are_not_told_apart_and_others_are() -> None:
    alarms = 0
    for _ in range(40):
        x = RNG.normal(size=(200, 16)).astype(np.float32)
        alarms += compare_domains(x[:100], x[100:], hashes(100), hashes(100)).differs
    assert alarms <= 4  # benchmarks/prediction/drift.py counts over 200 draws of real reviews
    x[100:] += 1
    found = compare_domains(x[:100], x[100:], hashes(100), hashes(100))
    assert found.differs and found.auc > 0.9 and found.interval[0] < found.auc <= found.interval[1]
    assert np.median(found.new) > 0.5 > np.median(found.old)


def test_a_text_that_repeats_tells_nothing() -> None:
    """One of the new texts stands there again and again: a head that saw it in training would know it again."""
    x, keys = RNG.normal(size=(120, 16)).astype(np.float32), hashes(120)
    new, new_keys = (np.concatenate([one[60:], np.repeat(one[60:61], 200, axis=0)]) for one in (x, keys))
    found = compare_domains(x[:60], new, keys[:60], new_keys)
    plain = compare_domains(x[:60], x[60:], keys[:60], keys[60:])
    assert found.auc == plain.auc and np.isnan(found.new[60:]).all() and np.isfinite(found.new[:60]).all()
    same = compare_domains(x, x, keys, keys)  # every text on both sides, each in one fold
    assert not same.differs
    with pytest.raises(EmbedcacheError, match=f"give {domain.FEWEST} or more of each"):
        compare_domains(x, x[:19], keys, keys[:19])


# ---- shares ----


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_shares_are_found_whatever_a_head_favours(share: float) -> None:
    def outputs(y: np.ndarray) -> np.ndarray:
        """Logits of a head that is twice as sure as it may be, and gives class 1 too often."""
        z = RNG.normal(size=len(y)) + np.where(y == 1, 1.0, -1.0)
        return np.stack([np.zeros(len(y)), 2 * (2 * z + np.log(0.7 / 0.3)) + 3], axis=1)

    old, new = ((RNG.random(4000) > first).astype(int) for first in (0.3, share))
    estimate, intervals = estimate_shares(old, outputs(old), outputs(new))
    assert estimate.sum() == pytest.approx(1) and estimate[0] == pytest.approx(share, abs=0.04)
    assert intervals[0][0] <= share <= intervals[0][1] and intervals[0][1] - intervals[0][0] < 0.1


def test_a_head_that_knows_nothing_changes_nothing() -> None:
    old = np.array([0.3, 0.7])
    assert new_shares(np.tile(old, (50, 1)), old) == pytest.approx(old)
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert new_shares(np.repeat(p, [2, 1, 1], axis=0), old) == pytest.approx(
        new_shares(p, old, np.array([0.5, 0.25, 0.25])), abs=1e-6
    ), "a weight is a row that counts more than once"
    alone = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert new_shares(alone, old, np.array([0.0, 0.5, 0.5])) == pytest.approx([0, 1]), "a row that does not count"


def heads_of(rng: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that favour some classes and are too sure."""
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    z = rng.normal(size=(n, classes)) + 2.0 * np.eye(classes)[y]
    return y, 3 * z + np.linspace(2, -2, classes)


def test_calibrated_probabilities_are_right_on_the_mean_of_each_class() -> None:
    y, outputs = heads_of(RNG, 3000, 6)
    fitted = BiasCorrected.fit(y, outputs)
    assert fitted.probabilities(outputs).mean(axis=0) == pytest.approx(np.bincount(y) / len(y), abs=1e-3)
    assert 0.4 < fitted.sharpness < 0.9, "logits that are too sure are divided"
    weights = RNG.multinomial(3000, np.full(3000, 1 / 3000), 2)
    for one, weight in zip(fitted.refits(y, outputs, weights / 3000), weights, strict=True):
        again = BiasCorrected.fit(np.repeat(y, weight), np.repeat(outputs, weight, axis=0))
        assert one.probabilities(outputs) == pytest.approx(again.probabilities(outputs), abs=5e-3)
        assert not np.allclose(one.probabilities(outputs), fitted.probabilities(outputs), atol=5e-3), "it has moved"


def test_without_a_shift_many_classes_keep_their_shares() -> None:
    """The intervals of 95% have the shares; a temperature alone would move them."""
    inside = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        (y, outputs), (other, new) = heads_of(rng, 4000, 12), heads_of(rng, 3000, 12)
        estimate, intervals = estimate_shares(y, outputs, new)
        true = np.bincount(other, minlength=12) / len(other)
        inside.append((intervals[:, 0] <= true) & (true <= intervals[:, 1]))
        p = probabilities(new, "classification", fit_temperature(y, outputs, "classification") or 1.0)
        worse = new_shares(p, np.bincount(y) / len(y))
        assert np.abs(estimate - true).sum() / 2 < 0.05 < 0.5 * np.abs(worse - true).sum() / 2
    assert np.mean(inside) > 0.85


def test_labels_that_nobody_can_tell_apart_get_no_estimate() -> None:
    labels = [f"{i % 60}" for i in range(900)]
    x = RNG.normal(size=(900, 8)).astype(np.float32)
    found = label_shift("label", x, labels, hashes(900), RNG.normal(size=(500, 8)).astype(np.float32), [])
    assert found is not None and not found.stable and found.accuracy < 0.1


def test_a_column_of_labels() -> None:
    def rows(n: int, share: float) -> tuple[np.ndarray, list[str]]:
        labels = np.where(RNG.random(n) < share, "a", "b")
        return (RNG.normal(size=(n, 8)) + np.where(labels == "a", 0.6, -0.6)[:, None]).astype(
            np.float32
        ), labels.tolist()

    (x, labels), (new, known) = rows(600, 0.5), rows(600, 0.2)
    labels[:5], labels[5:8] = [""] * 5, ["rare"] * 3
    found = label_shift("label", x, labels, hashes(600), new, known)
    assert found is not None and found.left_out == 1 and found.accuracy > 0.9 and found.stable
    (a, b) = found.classes
    assert (a.label, b.label) == ("a", "b") and a.new == pytest.approx(known.count("a") / 600)
    assert a.estimate == pytest.approx(a.new, abs=0.06) and abs(a.estimate - a.old) > 0.2
    assert label_shift("label", x, ["a"] * 600, hashes(600), new, []) is None


# ---- words and columns ----


def test_words_and_columns_that_differ() -> None:
    old, new = [text for text, _ in make_reviews(300)], [f"{text} tiktok" for text, _ in make_reviews(300)]
    (word, *others) = compare_words(old, new)
    assert (word.word, word.old, word.new) == ("tiktok", 0.0, pytest.approx(1)) and others == []
    assert compare_words(old, old) == [] == compare_words(["!"] * 9, ["?"] * 9)
    year = [str(2000 + i % 20) for i in range(300)]
    columns = {"year": year, "film": [f"film {i % 4}" for i in range(300)], "same": [f"c{i % 2}" for i in range(300)]}
    later = {**columns, "year": [str(int(one) + 5) for one in year], "film": ["film 9"] * 300, "other": year}
    found = {one.column: one for one in compare_columns(columns, later)}
    assert list(found)[2:] == ["same"] and [one.differs for one in found.values()] == [True, True, False]
    assert found["year"].test == "Kolmogorov-Smirnov" and found["year"].values[1][2] - found["year"].values[1][1] == 5
    assert found["film"].values[0] == ("film 9", 0.0, 1.0) and found["same"].p > 0.9
    comma = {"x": [f"{i % 20},5" for i in range(300)]}
    (one,) = compare_columns(comma, {"x": [f"{i % 20 + 5},5" for i in range(300)]})
    assert one.test == "Kolmogorov-Smirnov" and one.values[1][2] - one.values[1][1] == 5, "decimal commas are numbers"
    (one,) = compare_columns({"x": ["1,234", "5,678"] * 99}, {"x": ["1,234", "5,678"] * 99})
    assert one.test == "chi-squared", "these may be thousands"


# ---- the command ----


def test_a_table_and_a_cache_say_the_same(made: Path, tmp_path: Path, tiny_bert: Path) -> None:
    rows = [(f"{text} {text} horror horror", label, "new film") for text, label in make_reviews(80)]
    write_csv(tmp_path / "new.csv", rows, ("text", "label", "film"))
    extract = ["extract", tmp_path / "new.csv", "-o", tmp_path / "new.h5", "--model", tiny_bert, "--keep", "film"]
    document(*extract, "--pooling", "cls,mean")
    of = [
        document("drift", made / "reviews.h5", tmp_path / name, "--pooling", "mean") for name in ("new.csv", "new.h5")
    ]
    assert of[0]["differs"] and of[0]["rows_new"] == 80 and of[0]["auc"] == pytest.approx(of[1]["auc"], abs=1e-3)
    assert of[0]["words"] == of[1]["words"] and "horror" in [one["word"] for one in of[0]["words"]]
    assert {one["column"]: one["differs"] for one in of[0]["columns"]}["film"]
    (shift,) = of[0]["labels"]
    assert shift["column"] == "label" and sum(one["new"] for one in shift["classes"]) == pytest.approx(1)
    assert (
        len(of[0]["telling_new"]) == 10 and of[0]["telling_new"][0]["text"] == rows[of[0]["telling_new"][0]["row"]][0]
    )
    shown = invoke("drift", made / "reviews.h5", tmp_path / "new.h5", "--pooling", "mean")
    assert "they differ" in shown.stdout and "AUC" in shown.stdout and "horror" in shown.stdout
    assert ec.drift(made / "reviews.h5", made / "reviews.h5").differs is False


def test_imported_vectors_are_compared_like_any_others(tmp_path: Path) -> None:
    """Vectors of one name, in a cache and in another; without texts there are no words. Other names are refused."""
    old, new = RNG.normal(size=(300, 8)), RNG.normal(size=(200, 8)) + np.eye(8)[0]
    for name, rows in (("old", old[:150]), ("more", old[150:]), ("new", new)):
        ec.import_vectors(rows.astype(np.float32), tmp_path / f"{name}.h5", encoder="e", id=None)
    assert ec.drift(tmp_path / "old.h5", tmp_path / "new.h5").differs
    assert ec.drift(tmp_path / "old.h5", tmp_path / "more.h5").differs is False
    ec.import_vectors(new.astype(np.float32), tmp_path / "other.h5", encoder="another")
    assert "different encoders" in fails("drift", tmp_path / "old.h5", tmp_path / "other.h5")
    write_csv(tmp_path / "texts.csv", [("a film", "positive")] * 30, ("text", "label"))
    assert "were imported (e)" in fails("drift", tmp_path / "old.h5", tmp_path / "texts.csv")


def test_what_cannot_be_compared(made: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "few.csv", [("a film", "positive")] * 3, ("text", "label"))
    assert "1 new texts" in fails("drift", made / "reviews.h5", tmp_path / "few.csv")
    assert "is not a cache" in fails("drift", tmp_path / "few.csv", made / "reviews.h5")
    assert "no such file" in fails("drift", tmp_path / "gone.h5", made / "reviews.h5")
    x = RNG.normal(size=(30, 32)).astype(np.float16)
    other = make_cache(tmp_path / "other.h5", [f"t{i}" for i in range(30)], {"mean": x}, {"label": ["a", "b"] * 15})
    assert "different encoders" in fails("drift", made / "reviews.h5", other, "--pooling", "mean")
    assert "no such file" in fails("drift", made / "reviews.h5", tmp_path / "gone.csv").lower()
