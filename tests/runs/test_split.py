"""Splits: a row stays on its side whatever becomes of the others, and no text (or group) is on two sides."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, train_test_split

from embedcache.errors import EmbedcacheError
from embedcache.runs.split import Split, article_split, make_folds, make_split, places, split_notes


def hash_texts(texts: list[str]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def different(n: int) -> np.ndarray:
    return hash_texts([str(i) for i in range(n)])


def sides(split: Split) -> list[np.ndarray]:
    return [split.train, split.val, split.test]


def assert_apart(split: Split, values: np.ndarray) -> None:
    """No value of a row (its text or its group) is on two sides; no row is."""
    seen = [{bytes(np.asarray(v)) for v in values[rows]} for rows in sides(split)]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    everything = np.concatenate(sides(split))
    assert len(np.unique(everything)) == len(everything)


def test_one_text_of_many_rows_is_in_one_fold() -> None:
    codes = np.arange(130) % 2
    texts = hash_texts([str(min(i, 100)) for i in range(130)])
    for stratify in (True, False):
        folds = make_folds(codes, texts, folds=5, stratify=stratify)
        assert sum(100 in side.val for side in folds) == 1
        for side in folds:
            assert_apart(side, texts)


def test_sizes_are_those_of_a_draw() -> None:
    codes = np.random.default_rng(0).choice(3, size=10_030, p=[0.7, 0.2, 0.1]).astype(np.int32)
    codes[::50] = -1
    split = make_split(codes, different(10_030), val=0.1, test=0.2)
    labelled = codes[codes >= 0]
    assert split.unlabelled == 201 and split.duplicates == split.conflicts == split.left_out == 0
    assert not split_notes(split, codes, list("abc"))
    assert sorted(np.concatenate(sides(split))) == np.flatnonzero(codes >= 0).tolist()
    for rows, share in zip(sides(split), (0.7, 0.1, 0.2), strict=True):
        assert rows.dtype == np.int64 and np.all(np.diff(rows) > 0)
        assert len(rows) == pytest.approx(share * len(labelled), abs=4 * np.sqrt(share * (1 - share) * len(labelled)))
        expected = np.bincount(labelled) * len(rows) / len(labelled)
        assert np.all(np.abs(np.bincount(codes[rows]) - expected) < 4 * np.sqrt(expected))
    sizes = [len(make_split(codes, different(10_030), seed=seed).test) for seed in range(20)]
    assert np.std(sizes) == pytest.approx(np.sqrt(0.09 * len(labelled)), rel=0.5)


def test_the_place_of_a_text_can_be_computed_by_anyone() -> None:
    import hashlib

    key = hashlib.blake2b(b"a warm film", digest_size=16).digest()
    digest = hashlib.blake2b(key, digest_size=8, key=(42).to_bytes(8, "little")).digest()
    expected = int.from_bytes(digest, "little") / 2**64
    assert places(hash_texts(["x", "a warm film"]))[1] == pytest.approx(expected, abs=1e-15)
    places_of_many = places(different(10_000))
    assert places_of_many.min() >= 0 and places_of_many.max() < 1
    assert np.abs(np.sort(places_of_many) - np.arange(10_000) / 10_000).max() < 0.02  # Kolmogorov-Smirnov


def side_of(split: Split, names: np.ndarray) -> dict[int, int]:
    """name of a row -> its side."""
    return {int(name): i for i, rows in enumerate(sides(split)) for name in names[rows]}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), grouped=st.booleans(), stratify=st.booleans())
def test_no_row_moves_when_others_are_corrected_appended_deleted_or_sorted(
    data: st.DataObject, grouped: bool, stratify: bool
) -> None:
    """Every change at once. With 150 rows no side is empty, so no row is taken to fill one."""
    n = 200
    names, codes = np.arange(n), np.arange(n) % 3
    texts, keys = different(n), hash_texts([str(i // 2) for i in range(n)]) if grouped else None
    split = make_split(codes, texts, keys, stratify=stratify)
    keep = np.array(data.draw(st.permutations(range(n))))[: data.draw(st.integers(150, n))]
    changed = codes[keep].copy()
    wrong = data.draw(st.lists(st.integers(0, len(keep) - 1), max_size=30))
    changed[wrong] = data.draw(st.integers(-1, 4))
    after = make_split(changed, texts[keep], None if keys is None else keys[keep], stratify=stratify)
    before, now = side_of(split, names), side_of(after, names[keep])
    assert all(before[name] == side for name, side in now.items())
    assert len(now) == (changed >= 0).sum()


def test_correcting_and_appending_as_measured_before() -> None:
    """The issue's own case: 600 rows, 15 corrected: scikit-learn's split kept 16 of 60 test rows; 20 appended: 27."""
    rng = np.random.default_rng(0)
    codes = rng.choice(3, size=620, p=[0.6, 0.3, 0.1])
    texts = different(620)
    first = set(make_split(codes[:600], texts[:600]).test)
    corrected = codes[:600].copy()
    corrected[rng.choice(600, 15, replace=False)] = rng.integers(0, 3, 15)
    assert set(make_split(corrected, texts[:600]).test) == first
    assert {row for row in make_split(codes, texts).test if row < 600} == first


def test_the_seed_alone_decides() -> None:
    codes = np.arange(400, dtype=np.int32) % 2
    first, again, other = (make_split(codes, different(400), seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(sides(first), sides(again), strict=True))
    assert not np.array_equal(first.test, other.test)


@pytest.mark.parametrize("copies", [2, 5, 40])
def test_duplicates_stay_together_and_shares_stay_good(copies: int) -> None:
    rng = np.random.default_rng(copies)
    text = rng.permutation(np.concatenate([np.repeat(np.arange(1000 // copies), copies), 5000 + np.arange(1000)]))
    codes = (text % 4 == 0).astype(np.int32)
    split = make_split(codes, hash_texts([str(t) for t in text]))
    assert_apart(split, text)
    assert split.duplicates == 1000 - 1000 // copies and split.conflicts == 0
    for rows, share in zip(sides(split), [0.8, 0.1, 0.1], strict=True):
        spread = np.sqrt(share * (1 - share) * (1000 + 1000 * copies))  # of the rows: a text counts by its copies
        assert len(rows) == pytest.approx(share * 2000, abs=4 * spread)


def test_a_text_of_a_third_of_all_rows_is_on_one_side() -> None:
    texts = [""] * 300 + [str(i) for i in range(600)]
    codes = np.arange(900, dtype=np.int32) % 2
    split = make_split(codes, hash_texts(texts))
    assert sum(bool(set(range(300)) & set(rows)) for rows in sides(split)) == 1
    assert split.conflicts == 1 and "more than one label: 1;" in split_notes(split, codes, "ab")[0]


def test_groups_stay_on_one_side() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 300, size=3000)
    codes = (rng.random(3000) < rng.random(300)[groups]).astype(np.int32)
    split = make_split(codes, different(3000), hash_texts([str(g) for g in groups]))
    assert_apart(split, groups)
    for rows, share in zip(sides(split), [0.8, 0.1, 0.1], strict=True):
        assert len(np.unique(groups[rows])) == pytest.approx(share * 300, abs=4 * np.sqrt(share * (1 - share) * 300))


def test_a_text_in_two_groups_stays_on_one_side() -> None:
    groups = np.repeat(np.arange(50), 10)
    texts = [f"{i}" if i % 10 else "a classic" for i in range(500)]
    codes = np.arange(500, dtype=np.int32) // 10 % 2
    split = make_split(codes, hash_texts(texts), hash_texts([str(g) for g in groups]))
    assert_apart(split, groups)
    assert_apart(split, hash_texts(texts))
    assert split.left_out > 0 and sum(map(len, sides(split))) == 500 - split.left_out
    assert any(f"another side: {split.left_out}" in note for note in split_notes(split, codes, "ab"))


def test_classes_of_one_or_two_rows_are_named() -> None:
    codes = np.array([0] * 50 + [1] * 47 + [2, 3, 3], np.int32)
    split = make_split(codes, different(100))
    assert "one or two rows: mixed, odd;" in split_notes(split, codes, ["good", "bad", "mixed", "odd"])[0]


def test_few_rows() -> None:
    """The side that chance leaves empty takes what came nearest to it, and says so."""
    for seed in range(20):
        eight = make_split(np.arange(8), different(8), stratify=False, seed=seed)
        assert all(len(rows) for rows in sides(eight))
        groups = hash_texts([str(i // 10) for i in range(30)])
        three = make_split(np.arange(30, dtype=np.int32) % 2, different(30), groups, seed=seed)
        assert [len(rows) for rows in sides(three)] == [10, 10, 10]
    place = places(different(4), 3)
    alone = make_split(np.array([0, 1, 0, 1], np.int32), different(4), val=0, test=1e-9, seed=3)
    assert alone.test.tolist() == [int(place.argmin())] and "no text falls to the test rows" in alone.notes[0]
    two = make_split(np.array([0, 1], np.int32), different(2), val=0, test=0)
    assert two.train.tolist() == [0, 1] and not len(two.val) and not len(two.test)
    with pytest.raises(EmbedcacheError, match=r"2 labelled rows .* too few for --val 0.1"):
        make_split(np.array([0, 1], np.int32), different(2))
    with pytest.raises(EmbedcacheError, match=r"only one class is left .* --split SEED"):
        make_split(np.array([0, 1], np.int32), different(2), val=0)


@pytest.mark.parametrize(
    ("codes", "settings", "message"),
    [
        ([-1, -1], {}, "no row has a label"),
        ([0, 0, 0, -1], {}, "all 3 labelled rows are of one class"),
        ([0, 1] * 10, {"val": 1.5}, "--val 1.5"),
        ([0, 1] * 10, {"test": -0.1}, "--test -0.1"),
        ([0, 1] * 10, {"val": 0.5, "test": 0.5}, "leave no rows to train on"),
        ([0, 1] * 10, {"keys": np.zeros((20, 16), np.uint8)}, "1 different groups are too few"),
    ],
)
def test_what_cannot_be_split_is_said(codes: list[int], settings: dict, message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        make_split(np.array(codes, np.int32), different(len(codes)), **settings)


def test_equal_texts_cannot_be_split() -> None:
    with pytest.raises(EmbedcacheError, match="1 different texts"):
        make_split(np.arange(20, dtype=np.int32) % 2, hash_texts(["same"] * 20))


def test_article_split_is_scikit_learns() -> None:
    codes = np.random.default_rng(0).integers(0, 2, 1000).astype(np.int32)
    split = article_split(codes, different(1000))
    train, val = train_test_split(np.arange(1000), test_size=0.2, random_state=42, stratify=codes)
    assert split.train.tolist() == sorted(train) and split.val.tolist() == sorted(val) and not len(split.test)


def test_article_split_pulls_duplicates_to_one_side() -> None:
    text = np.arange(1000) // 3 * (np.arange(1000) < 300) + np.arange(1000) * (np.arange(1000) >= 300)
    codes = (np.arange(1000) // 3 % 2).astype(np.int32)
    codes[999] = 2
    split = article_split(codes, hash_texts([str(t) for t in text]))
    assert_apart(split, text)
    assert len(split.val) == pytest.approx(200, abs=30) and 999 in split.train


def test_folds_cover_all_rows_once() -> None:
    codes = np.random.default_rng(0).choice(2, size=503, p=[0.8, 0.2]).astype(np.int32)
    codes[::10] = -1
    folds = make_folds(codes, different(503), folds=5)
    assert sorted(np.concatenate([fold.val for fold in folds])) == np.flatnonzero(codes >= 0).tolist()
    for fold in folds:
        assert len(fold.train) + len(fold.val) == (codes >= 0).sum() and not len(fold.test)
        assert len(fold.val) in (90, 91)
        assert abs(codes[fold.val].sum() - codes[codes >= 0].sum() / 5) <= 1.5
    with pytest.raises(EmbedcacheError, match="--folds 1"):
        make_folds(codes, different(503), folds=1)
    with pytest.raises(EmbedcacheError, match="5 folds need as many groups"):
        make_folds(codes, different(503), hash_texts([str(i % 3) for i in range(503)]), folds=5)


def test_without_strata_the_sides_are_the_same() -> None:
    codes = np.random.default_rng(1).integers(0, 900, size=1000)  # a number for each different target
    split = make_split(codes, different(1000), stratify=False)
    classes = make_split(codes % 2, different(1000))
    assert all(np.array_equal(a, b) for a, b in zip(sides(split), sides(classes), strict=True))
    one_target = make_split(np.zeros(100, int), different(100), stratify=False)  # whoever loads the data objects
    assert sum(map(len, sides(one_target))) == 100


def test_folds_without_strata_are_scikit_learns() -> None:
    codes = np.arange(100)
    folds = make_folds(codes, different(100), folds=4, stratify=False)
    for fold, (_, val) in zip(folds, KFold(4, shuffle=True, random_state=42).split(codes), strict=True):
        assert fold.val.tolist() == sorted(val)


def test_without_strata_texts_and_groups_stay_together() -> None:
    rng = np.random.default_rng(3)
    groups, text = rng.integers(0, 300, size=3000), rng.integers(0, 2500, size=3000)
    codes = np.where(rng.random(3000) < 0.1, -1, rng.integers(0, 10**9, 3000))
    hashes, keys = hash_texts([str(t) for t in text]), hash_texts([str(g) for g in groups])
    split = make_split(codes, hashes, stratify=False)
    assert_apart(split, text)
    assert split.unlabelled == (codes < 0).sum() and split.conflicts > 100
    for rows, share in zip(sides(split), [0.8, 0.1, 0.1], strict=True):
        assert len(rows) == pytest.approx(share * (codes >= 0).sum(), abs=90)
    split = make_split(codes, different(3000), keys, stratify=False)
    assert_apart(split, groups)
    for rows, share in zip(sides(split), [0.8, 0.1, 0.1], strict=True):
        assert len(rows) == pytest.approx(share * (codes >= 0).sum(), abs=250)
    folds = make_folds(codes, different(3000), keys, folds=5, stratify=False)
    assert sorted(np.concatenate([fold.val for fold in folds])) == np.flatnonzero(codes >= 0).tolist()
    for fold in folds:
        assert_apart(fold, groups)
        assert len(fold.val) == pytest.approx((codes >= 0).sum() / 5, abs=20)


def test_few_rows_without_strata() -> None:
    three = make_split(np.arange(3), different(3), stratify=False)
    assert [len(rows) for rows in sides(three)] == [1, 1, 1]
    with pytest.raises(EmbedcacheError, match=r"2 labelled rows .* too few for --val"):
        make_split(np.arange(2), different(2), stratify=False)
    with pytest.raises(EmbedcacheError, match=r"1 different texts are too few for --test"):
        make_split(np.arange(5), hash_texts(["same"] * 5), val=0, stratify=False)
    assert len(make_split(np.arange(1), different(1), val=0, test=0, stratify=False).train) == 1


def test_notes_on_lists_of_labels() -> None:
    y = np.zeros((10, 3), np.float32)
    y[:, 0], y[9, 1], y[3] = 1, 1, -1
    split = Split(np.arange(8), np.array([8]), np.array([9]))
    assert split_notes(split, y, ["a", "b", "c"]) == ["classes without a training row, never predicted: b"]
    split.conflicts = 2
    assert split_notes(split, np.zeros((10, 1), np.float32), []) == [
        "texts with more than one label: 2; kept, all rows of a text on one side"
    ]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.integers(0, 40), min_size=1, max_size=80),
    labels=st.lists(st.integers(-1, 4), min_size=80, max_size=80),
    grouped=st.booleans(),
    stratify=st.booleans(),
    val=st.sampled_from([0, 0.1, 0.4]),
    test=st.sampled_from([0, 0.1, 0.4]),
)
def test_whatever_the_table_no_text_or_group_is_on_two_sides(
    texts: list[int], labels: list[int], grouped: bool, stratify: bool, val: float, test: float
) -> None:
    codes, text = np.array(labels[: len(texts)], np.int32), np.array(texts)
    groups = text % 7 if grouped else None
    keys = hash_texts([str(g) for g in groups]) if grouped else None
    try:
        split = make_split(codes, hash_texts([str(t) for t in texts]), keys, val=val, test=test, stratify=stratify)
    except EmbedcacheError:
        return
    assert_apart(split, text)
    assert sum(map(len, sides(split))) + split.unlabelled + split.left_out == len(texts)
    assert len(np.unique(codes[split.train])) >= 1 + stratify
    assert bool(len(split.val)) == bool(val) and bool(len(split.test)) == bool(test)
    if groups is not None:
        assert_apart(split, groups)
