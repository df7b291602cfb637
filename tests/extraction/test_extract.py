"""The whole pass: what is encoded, what is reused, what is counted, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import embedcache as ec
from embedcache.cache import open_cache, verify
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from tests.conftest import make_reviews, write_csv


@pytest.fixture
def run(tiny_bert, tmp_path):
    """extract(rows) into cache.h5 of this test's folder."""

    def run(rows, header=("text", "label"), **options):
        table = write_csv(tmp_path / "table.csv", rows, header)
        return extract(table, tmp_path / "cache.h5", **{"model": tiny_bert, "device": "cpu", **options})

    return run


@pytest.fixture
def cache_path(tmp_path):
    return tmp_path / "cache.h5"


def plain_vectors(model, texts, max_length=250):
    """[n, 32] CLS and mean vectors by transformers alone, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    cls, mean = [], []
    for text in texts:
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            hidden = encoder(**inputs).last_hidden_state[0]
        cls.append(hidden[0].numpy())
        mean.append(hidden.mean(0).numpy())
    return np.array(cls), np.array(mean)


def contents(path):
    """Everything that a user can see, as plain arrays and lists."""
    with open_cache(path) as cache:
        found = {output: np.array(cache.embeddings(*output)) for output in cache.outputs}
        labels = {name: (cache.labels(name)[0].tolist(), cache.labels(name)[1]) for name in cache.label_names}
        return found, list(cache.texts), np.array(cache.hashes).tolist(), labels, cache.truncated.tolist()


def assert_same(a, b):
    for key, vectors in a[0].items():
        np.testing.assert_array_equal(vectors, b[0][key])
    assert a[0].keys() == b[0].keys() and a[1:] == b[1:]


def test_vectors_equal_plain_transformers(run, tiny_bert, cache_path):
    rows = make_reviews(150)
    report = run(rows, pooling=("cls", "mean"), dtype="float32", store="float32")
    assert (report.rows, report.encoded, report.reused, report.duplicates) == (150, 150, 0, 0)
    assert report.tokenizer == "library: too few texts for the native one"
    cls, mean = plain_vectors(tiny_bert, [text for text, _ in rows])
    with open_cache(cache_path) as cache:
        np.testing.assert_allclose(cache.embeddings("cls"), cls, atol=2e-5)
        np.testing.assert_allclose(cache.embeddings("mean"), mean, atol=2e-5)
        codes, classes = cache.labels("label")
        assert [classes[i] for i in codes] == [label for _, label in rows]
    assert verify(cache_path).ok


def test_duplicates_are_encoded_once(run, cache_path):
    rows = make_reviews(60)
    report = run([*rows, *rows[::-1], rows[0]])
    assert (report.rows, report.encoded, report.duplicates, report.reused) == (121, 60, 61, 0)
    with open_cache(cache_path) as cache:
        x = cache.embeddings()
        np.testing.assert_array_equal(x[:60], x[60:120][::-1])
        np.testing.assert_array_equal(x[120], x[0])


def test_nothing_changed_loads_neither_torch_nor_weights(run, tiny_bert, tmp_path, cache_path):
    run(make_reviews(30))
    before = cache_path.read_bytes()
    code = (
        "import sys, json, embedcache as ec\n"
        f"r = ec.extract({str(tmp_path / 'table.csv')!r}, {str(cache_path)!r}, model={str(tiny_bert)!r})\n"
        "print(json.dumps([r.encoded, r.reused, sorted({'torch', 'transformers'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, 30, []]
    assert cache_path.read_bytes() == before


def test_append_delete_reorder_change_encode_only_what_is_new(run, cache_path):
    rows = make_reviews(2500)
    first = rows[:2300]
    assert run(first).encoded == 2300
    old = dict(zip([text for text, _ in first], contents(cache_path)[0]["cls", -1], strict=True))
    changed = [*rows[2100:], *rows[:1000], ("a new one", "positive")]  # appended, reordered, deleted
    report = run(changed)
    assert (report.rows, report.encoded, report.reused, report.dropped) == (1401, 201, 1200, 1100)
    found, texts, *_ = contents(cache_path)
    assert texts == [text for text, _ in changed]
    for text, vector in zip(texts, found["cls", -1], strict=True):
        assert text not in old or (vector == old[text]).all()
    assert run(changed).encoded == 0


def test_label_and_column_changes_encode_nothing(run, cache_path):
    rows = make_reviews(80)
    run(rows)
    assert run([(text, "9" if i % 3 else "10") for i, (text, _) in enumerate(rows)]).encoded == 0
    with open_cache(cache_path) as cache:
        assert cache.labels("label")[1] == ["9", "10"]  # as numbers
    wide = [(f"id {i}", text, label, "") for i, (text, label) in enumerate(rows)]
    report = run(wide, ("key", "text", "stars", "label"), id="key", keep=("stars",), labels=("stars", "label"))
    assert report.encoded == 0 and report.missing_labels == {"stars": 0, "label": 80}
    with open_cache(cache_path) as cache:
        assert cache.ids[3] == "id 3" and cache.column("stars")[0] == "negative"
        assert cache.column_names == ["key", "stars"] and cache.labels("label")[1] == []


def write_topics(path, topics):
    pairs = zip(make_reviews(len(topics)), topics, strict=True)
    rows = [{"text": text, "topics": one, "label": label} for (text, label), one in pairs]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


TOPICS = [["plot", "actor"], [], None, ["plot"], ["日本", "actor", "actor"]] * 300


def test_lists_of_labels(tiny_bert, tmp_path, cache_path):
    options = {"model": tiny_bert, "device": "cpu", "labels": ["topics", "label"]}
    report = extract(write_topics(tmp_path / "t.jsonl", TOPICS), cache_path, **options)
    assert report.encoded == 1500 and report.missing_labels == {"topics": 300, "label": 0}
    with open_cache(cache_path) as cache:
        matrix, classes = cache.labels("topics")
        assert classes == ["actor", "plot", "日本"]
        assert matrix[:5].tolist() == [[1, 1, 0], [0, 0, 0], [-1, -1, -1], [0, 1, 0], [1, 0, 1]]
        assert cache.labels("label")[0].dtype == np.int32
    before = cache_path.read_bytes()
    assert extract(tmp_path / "t.jsonl", cache_path, **options).encoded == 0
    assert cache_path.read_bytes() == before and verify(cache_path).ok
    # As CSV, in another order, one row more; then single labels in place of the lists, and back: nothing is encoded.
    vectors, texts = contents(cache_path)[0]["cls", -1], [text for text, _ in make_reviews(1500)]
    cells = ["" if one is None else json.dumps(one) for one in TOPICS]
    rows = [*zip(texts, cells, strict=True)][::-1]
    write_csv(tmp_path / "t.csv", [*rows, ("a new one", '["new"]')], ("text", "topics"))
    options["labels"] = "topics"
    assert extract(tmp_path / "t.csv", cache_path, **options).encoded == 1
    with open_cache(cache_path) as cache:
        again, classes = cache.labels("topics")
        assert classes == ["actor", "new", "plot", "日本"] and again[-1].tolist() == [0, 1, 0, 0]
        np.testing.assert_array_equal(again[-2::-1][:, [0, 2, 3]], matrix)
        np.testing.assert_array_equal(cache.embeddings()[-2::-1], vectors)
    write_csv(tmp_path / "t.csv", [(text, "x") for text, _ in rows], ("text", "topics"))
    assert extract(tmp_path / "t.csv", cache_path, **options).encoded == 0
    with open_cache(cache_path) as cache:
        assert cache.label_kind("topics") == "classification"
    write_csv(tmp_path / "t.csv", rows, ("text", "topics"))
    assert extract(tmp_path / "t.csv", cache_path, **options).encoded == 0
    assert open_cache(cache_path).label_kind("topics") == "multilabel" and verify(cache_path).ok


def test_damaged_lists_of_labels_are_made_anew(tiny_bert, tmp_path, cache_path):
    table, options = write_topics(tmp_path / "t.jsonl", TOPICS), {"model": tiny_bert, "device": "cpu"}
    extract(table, cache_path, labels="topics", **options)
    sound = contents(cache_path)
    data = bytearray(cache_path.read_bytes())
    with open_cache(cache_path) as cache:
        data[cache.offset("labels/topics")] ^= 1
    cache_path.write_bytes(data)
    assert verify(cache_path).damaged == [("labels/topics", 0, 1024)]
    report = extract(table, cache_path, labels="topics", **options)
    assert (report.encoded, report.repaired) == (0, 1)
    assert_same(contents(cache_path), sound)


def test_too_many_labels_in_lists(tiny_bert, tmp_path, cache_path):
    table = write_topics(tmp_path / "t.jsonl", [[f"topic {i}", f"topic {i + 1}"] for i in range(5000)])
    with pytest.raises(EmbedcacheError, match=r"'topics' hold more than 5,000 different labels: .*--keep topics"):
        extract(table, cache_path, model=tiny_bert, device="cpu", labels="topics")
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]
    table = write_topics(tmp_path / "t.jsonl", [[f"topic {i}"] for i in range(1500)])  # no cause for suspicion
    assert extract(table, cache_path, model=tiny_bert, device="cpu", labels="topics").rows == 1500
    with open_cache(cache_path) as cache:
        assert cache.labels("topics")[0].shape == (1500, 1500) and cache.labels("topics")[1][0] == "topic 0"


def test_poolings_are_added_and_stay(run, cache_path):
    rows = make_reviews(50)
    run(rows)
    cls = contents(cache_path)[0]["cls", -1]
    assert run(rows, pooling="mean").encoded == 50
    found = contents(cache_path)[0]
    assert set(found) == {("cls", -1), ("mean", -1)}
    np.testing.assert_array_equal(found["cls", -1], cls)
    assert run([*rows, ("one more", "positive")]).encoded == 1
    assert contents(cache_path)[0]["mean", -1].shape == (51, 32)


def test_several_layers(run, cache_path):
    import h5py

    run(make_reviews(20), layers=(-1, -2))
    run(make_reviews(20))
    with h5py.File(cache_path) as file:
        assert sorted(file["embeddings/cls"]) == ["layer-1", "layer-2"]
    with open_cache(cache_path) as cache:
        assert (cache.embeddings("cls", -2) != cache.embeddings("cls")).any()


def test_a_layer_that_is_not_there(run, cache_path):
    for layers in ((-9,), (3,)):
        with pytest.raises(EmbedcacheError, match=r"no layer .* has 2, and -1 is the last"):
            run(make_reviews(5), layers=layers)
        assert not cache_path.exists()
    run(make_reviews(5))
    before = cache_path.read_bytes()
    with pytest.raises(EmbedcacheError, match="no layer"):
        run(make_reviews(5), layers=3)
    assert cache_path.read_bytes() == before


def test_truncated_blank_and_all_scripts(run, cache_path):
    texts = ["", "   ", "退屈な映画 🎬", "فيلم ممل", "film " * 400, "ok"]
    report = run([(text, "a") for text in texts], max_length=64)
    assert (report.truncated, report.blank, report.rows) == (1, 2, 6)
    assert report.tokens < 64 * 6
    _, found, _, _, truncated = contents(cache_path)
    assert found == texts and truncated == [0, 0, 0, 0, 1, 0]
    assert run([("ok", "a"), ("film " * 400, "b")], max_length=64).truncated == 1  # known again without encoding


def test_labels_default_to_a_column_of_that_name(run, cache_path, tiny_bert, tmp_path):
    assert run([("one", "x")], ("text", "stars")).missing_labels == {}
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    extract([tmp_path / "lines.txt"], tmp_path / "lines.h5", model=tiny_bert, device="cpu")
    with pytest.raises(EmbedcacheError, match="nope"):
        run([("one", "x")], labels="nope")


@pytest.mark.parametrize("values", [10_000, 1_200])
def test_is_it_really_the_label(run, cache_path, values):
    with pytest.raises(
        EmbedcacheError, match=r"'label' has 1.* really the label\?.*--id label.*regression use --keep label"
    ):
        run([(f"text {i}", f"value {i}") for i in range(values)])
    assert not cache_path.exists()


def test_another_encoder_is_refused_in_words(run, tiny_bert, tmp_path, cache_path):
    rows = make_reviews(20)
    run(rows, dtype="float32")
    before = cache_path.read_bytes()
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (other / "model.safetensors").write_bytes(data)
    for options, words in (
        ({"max_length": 99}, "max_length 250 in the cache, 99 asked"),
        ({"store": "float32"}, "store float16 in the cache, float32 asked"),
        ({"dtype": "bfloat16"}, "compute_dtype float32 in the cache, bfloat16 asked"),
        ({"model": other}, "weights model.safetensors differs"),
    ):
        with pytest.raises(EmbedcacheError, match=words + ".*--overwrite.* another -o"):
            run(rows, **options)
        assert cache_path.read_bytes() == before
    assert run(rows, model=other, overwrite=True).encoded == 20


def test_a_moved_model_is_the_same_model(run, tiny_bert, tmp_path, cache_path):
    rows = make_reviews(20)
    run(rows)
    moved = shutil.copytree(tiny_bert, tmp_path / "moved")
    assert run(rows, model=moved).encoded == 0
    with open_cache(cache_path) as cache:
        assert cache.encoder["source"] == str(moved)


def test_an_unrelated_input_is_refused(run, cache_path):
    run(make_reviews(20))
    before = cache_path.read_bytes()
    with pytest.raises(EmbedcacheError, match="none of the 20 texts"):
        run([("something else", "a")])
    assert cache_path.read_bytes() == before
    assert run([("something else", "a")], overwrite=True).encoded == 1


def test_numbers_that_do_not_fit_name_the_row(run, cache_path, monkeypatch):
    from embedcache.encoder import Encoder

    plain = Encoder.encode

    def huge(self, ids, outputs):
        return [vectors * (1e6 if any(len(row) > 200 for row in ids) else 1) for vectors in plain(self, ids, outputs)]

    monkeypatch.setattr(Encoder, "encode", huge)
    with pytest.raises(EmbedcacheError, match=r"row 1 \('film film.*float16; run with --store float32"):
        run([("ok", "a"), ("film " * 240, "b")], batch_tokens=250)
    assert not cache_path.exists()  # so that the advice works


def test_what_is_no_cache_is_never_written_over(run, cache_path):
    cache_path.write_text("my diary")
    for overwrite in (False, True):
        with pytest.raises(EmbedcacheError, match="not an HDF5 file"):
            run(make_reviews(3), overwrite=overwrite)
    assert cache_path.read_text() == "my diary"


def test_nothing_is_left_behind(run, tmp_path, cache_path):
    (tmp_path / ".cache.h5.tmp").write_bytes(b"from a killed run")
    (tmp_path / ".cache.h5.new").write_bytes(b"from a killed run")
    run(make_reviews(10))
    run(make_reviews(12))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5", "table.csv"]


def test_progress_counts_tokens(run):
    calls = []
    report = run(make_reviews(100), progress=lambda *call: calls.append(call), batch_tokens=500)
    assert len(calls) > 3 and calls[-1] == (report.tokens, report.tokens, 100)
    assert all(a[0] < b[0] for a, b in pairwise(calls))


def test_the_module_can_be_called(tiny_bert, tmp_path):
    import embedcache.extraction.job

    table = write_csv(tmp_path / "t.csv", make_reviews(3))
    options = {"model": tiny_bert, "device": "cpu"}
    assert ec.extract(table, tmp_path / "a.h5", **options).encoded == 3
    assert embedcache.extraction.job.extract(table, tmp_path / "a.h5", **options).encoded == 0
    assert ec.extract(str(table), str(tmp_path / "a.h5"), **options).reused == 3
