"""ec.cached: the array of sentence-transformers, each text encoded once, and no row ever lost."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
import embedcache.vector_store.store as vector_store
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from tests.conftest import document, make_reviews

TEXTS = [f"{text} {i}" for i, (text, _) in enumerate(make_reviews(60))]


@pytest.fixture
def open_one(tiny_bert: Path, tmp_path: Path) -> Callable[..., ec.CachedEncoder]:
    return lambda **options: ec.cached(tiny_bert, tmp_path / "v", **options)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that goes through an encoder."""
    seen: list[str] = []
    real = Encoder.encode_texts

    def encode(self: Encoder, texts: Any, outputs: Any) -> Any:
        seen.extend(texts)
        return real(self, texts, outputs)

    monkeypatch.setattr(Encoder, "encode_texts", encode)
    return seen


def test_the_arrays_of_sentence_transformers(tiny_bert: Path, open_one: Callable[..., ec.CachedEncoder]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs, ours = sentence_transformers.SentenceTransformer(str(tiny_bert), device="cpu"), open_one()
    many: list[dict[str, Any]] = [
        {}, {"normalize_embeddings": True}, {"truncate_dim": 5}, {"prompt": "query: "}, {"convert_to_tensor": True},
        {"batch_size": 7, "show_progress_bar": False},
    ]  # fmt: skip
    for options in many * 2:  # computed, then known
        for given in (TEXTS, TEXTS[0], [TEXTS[3]], [TEXTS[1], TEXTS[0], TEXTS[1]], []):
            expected, found = theirs.encode(given, **options), ours.encode(given, **options)
            assert type(found) is type(expected)
            if len(given):
                assert found.shape == expected.shape and found.dtype == expected.dtype, (options, given)
                one, other = (np.atleast_2d(np.asarray(array, np.float64)) for array in (expected, found))
                norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
                assert ((one * other).sum(1) / norms > 0.999999).all()
                assert np.allclose(one, other, atol=1e-5)
    listed = ours.encode(TEXTS[:2], convert_to_numpy=False)
    assert isinstance(listed, list) and listed[0].shape == (32,)


def test_each_text_is_encoded_once(open_one: Callable[..., ec.CachedEncoder], encoded: list[str]) -> None:
    first = open_one()
    whole = first.encode(TEXTS[:40] + TEXTS[:5])
    assert encoded == TEXTS[:40] and len(first) == 40
    assert (whole[:5] == whole[40:]).all()
    with open_one() as other:
        again = other.encode(TEXTS)
        assert encoded == TEXTS and (again[:40] == whole[:40]).all()
    assert (first.encode(TEXTS) == again).all() and encoded == TEXTS, "what another has added is seen"
    third = open_one()
    assert (third.encode(TEXTS[::-1]) == again[::-1]).all() and encoded == TEXTS
    third.encode(TEXTS[:3], prompt="query: ")
    assert len(encoded) == 63, "another prompt makes other vectors"


def test_known_texts_load_no_model(open_one: Callable[..., ec.CachedEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_one() as first:
        expected = first.encode(TEXTS)

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(Encoder, "load", load)
    assert (open_one().encode(TEXTS) == expected).all()


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_what_is_merged_is_a_cache(
    store: str, open_one: Callable[..., ec.CachedEncoder], encoded: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("embedcache.vector_store.store.LEAST", 8)
    merges: list[int] = []
    real = vector_store.VectorStore._merge
    monkeypatch.setattr(
        "embedcache.vector_store.store.VectorStore._merge", lambda self: (merges.append(self.rows), real(self))
    )
    encoder = open_one(store=store)
    vectors = np.stack([encoder.encode(text) for text in TEXTS])  # one at a time
    assert encoded == TEXTS
    assert len(merges) <= 6 and sum(merges) < 4 * len(TEXTS), "merged as it grows by half"
    encoder.close()
    (path,) = encoder.files
    assert document("verify", path)["ok"] and document("info", path)["rows"] == len(TEXTS)
    with ec.open_cache(path) as cache:
        assert list(cache.texts) == TEXTS and (np.asarray(cache.embeddings(), np.float32) == vectors).all()
    found = document("search", path, TEXTS[7], "-k", 1)["results"]
    assert found[0]["text"] == TEXTS[7]
    assert sorted(one.name for one in tmp_path.joinpath("v").iterdir()) == sorted([path.name, f"{path.stem}.log"])


def test_a_log_cut_anywhere_loses_the_cut_part_alone(
    open_one: Callable[..., ec.CachedEncoder], encoded: list[str], tmp_path: Path
) -> None:
    encoder = open_one()
    parts = [TEXTS[:3], TEXTS[3:4], TEXTS[4:9]]
    expected = np.concatenate([encoder.encode(part) for part in parts])
    (log,) = (tmp_path / "v").glob("*.log")
    whole = log.read_bytes()
    marks = [i for i in range(len(whole)) if whole.startswith(b"\xecpart\r\n\x1a", i)]
    assert len(marks) == 3
    rng = random.Random(0)
    for cut in [*marks, *(rng.randrange(marks[0], len(whole)) for _ in range(12)), len(whole) - 1]:
        log.unlink()
        log.write_bytes(whole[:cut])
        encoded.clear()
        survivor = open_one()
        assert (survivor.encode(TEXTS[:9]) == expected).all()
        complete = sum(stop <= cut for stop in [*marks[1:], len(whole)])
        assert encoded == [text for part in parts[complete:] for text in part], cut
        assert (open_one().encode(TEXTS[:9]) == expected).all(), "and what was cut off is there again"
    for place in [rng.randrange(marks[0], marks[1]) for _ in range(8)]:  # a flipped bit in the first part
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << rng.randrange(8)
        log.unlink()
        log.write_bytes(spoilt)
        encoded.clear()
        assert (open_one().encode(TEXTS[:9]) == expected).all() and encoded == TEXTS[:3], place


def test_damage_in_the_cache_is_encoded_again(open_one: Callable[..., ec.CachedEncoder], encoded: list[str]) -> None:
    with open_one() as encoder:
        expected = encoder.encode(TEXTS)
    (path,) = encoder.files
    with ec.open_cache(path) as cache:
        place = cache.offset(cache.output_paths[cache.outputs[0]]) + 100
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff\xff")
    encoded.clear()
    with open_one() as again:
        assert (again.encode(TEXTS) == expected).all() and encoded == TEXTS
    assert document("verify", path)["ok"]


def test_several_threads(open_one: Callable[..., ec.CachedEncoder], encoded: list[str]) -> None:
    encoder, errors = open_one(), []
    expected = {}

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(6):
                some = rng.sample(TEXTS, 12)
                for text, vector in zip(some, encoder.encode(some), strict=True):
                    assert (expected.setdefault(text, vector) == vector).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(encoded) == len(set(encoded)) == len(encoder)


WRITER = """import sys
import embedcache as ec
from embedcache.vector_store import store
store.LEAST = 16
encoder = ec.cached(sys.argv[1], sys.argv[2])
for start in range(0, 400, 4):
    encoder.encode([f"text {i}" for i in range(start, start + 4)])
    print(start + 4, flush=True)
"""


def test_a_writer_that_is_killed_beside_readers(
    tiny_bert: Path, open_one: Callable[..., ec.CachedEncoder], encoded: list[str], tmp_path: Path
) -> None:
    reader = open_one()
    known = 0
    for turn in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tiny_bert), str(tmp_path / "v")], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        until = time.monotonic() + 60
        for line in writer.stdout:
            known = max(known, int(line))
            if int(line) >= 60 * (turn + 1) or time.monotonic() > until:
                break
            if int(line) % 20 == 0:
                texts = [f"text {i}" for i in range(known)]
                assert np.isfinite(reader.encode(texts)).all() and encoded == [], "what the writer reported is there"
        writer.kill()
        writer.wait()
    texts = [f"text {i}" for i in range(known)]
    assert known >= 180 and (open_one().encode(texts) == reader.encode(texts)).all() and encoded == []
    fresh = ec.cached(tiny_bert, tmp_path / "other")
    assert np.allclose(fresh.encode(texts), reader.encode(texts), atol=1e-6)
    reader.close()
    assert document("verify", reader.files[0])["ok"]


def test_where_open_files_cannot_be_replaced_merging_waits_for_the_readers(
    open_one: Callable[..., ec.CachedEncoder], encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: the log goes on, the merge is tried again once the log is half as long again."""
    tried: list[int] = []
    real = vector_store.publish

    def publish(source: Path, target: Path) -> None:
        tried.append(len(encoded))
        if len(encoded) < 30:
            raise PermissionError(13, "another program has it open")
        real(source, target)

    monkeypatch.setattr(vector_store, "LEAST", 8)
    monkeypatch.setattr(vector_store, "publish", publish)
    monkeypatch.setattr(vector_store, "sys", type("Windows", (), {"platform": "win32"}))
    with open_one() as encoder:
        for start in range(0, 48, 4):
            encoder.encode(TEXTS[start : start + 4])
        assert tried == [8, 12, 20, 32, 48] and len(encoded) == 48
        (store,) = tmp_path.joinpath("v").glob("*.h5")
        with ec.open_cache(store) as merged:
            assert len(merged) == 48
    with open_one() as encoder:
        encoder.encode(TEXTS[:48])
    assert len(encoded) == 48 and not list(tmp_path.glob("v/.*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_name": "query"}, "has no prompt 'query'; it has none"),
        ({"output_value": "token_embeddings"}, "only sentence_embedding is kept"),
        ({"precision": "int8"}, "precision 'int8': quantize the result"),
        ({"sentences": ["a", None]}, "text 1 is missing: None"),
        ({"sentences": 5}, "texts must be a str or a list of them, not int"),
    ],
)
def test_what_cannot_be_done_gets_one_line(
    options: dict[str, Any], message: str, open_one: Callable[..., ec.CachedEncoder]
) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        open_one().encode(**{"sentences": ["a"], **options})


def test_places_that_cannot_be_used(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EmbedcacheError, match="is a file: name a folder"):
        ec.cached(tiny_bert, tmp_path / "file")
    with pytest.raises(EmbedcacheError, match="unknown store type 'int8'"):
        ec.cached(tiny_bert, tmp_path / "v", store="int8")
    encoder = ec.cached(tiny_bert, tmp_path / "v")
    encoder.encode(["a"])
    (log,) = (tmp_path / "v").glob("*.log")
    log.write_text("something else")
    with pytest.raises(EmbedcacheError, match="is no log of this encoder, or is damaged: delete it"):
        ec.cached(tiny_bert, tmp_path / "v").encode(["a"])
