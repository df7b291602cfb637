"""What makes vectors comparable, and how a difference is told."""

from __future__ import annotations

import copy

from embedcache.cache.fingerprint import differences, fingerprint, output_fingerprint

ENCODER = {
    "source": "/models/a",
    "store": "float16",
    "identity": {
        "weights": {"model.safetensors": "a" * 64},
        "tokenizer": {"tokenizer.json": "b" * 64},
        "config": "c" * 64,
        "max_length": 128,
        "compute_dtype": "float32",
    },
}


def changed(**changes):
    encoder = copy.deepcopy(ENCODER)
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        where = encoder
        for name in parents:
            where = where[name]
        where[leaf] = value
    return encoder


def test_the_place_does_not_matter_but_the_content_does():
    assert fingerprint(ENCODER) == fingerprint(changed(source="/elsewhere")) == fingerprint(copy.deepcopy(ENCODER))
    assert differences(ENCODER, changed(source="/elsewhere")) == ""
    for change in ({"store": "float32"}, {"identity__max_length": 250}, {"identity__config": "d" * 64}):
        assert fingerprint(ENCODER) != fingerprint(changed(**change))


def test_every_dataset_has_its_own():
    prints = {output_fingerprint(ENCODER, output) for output in (("cls", -1), ("mean", -1), ("cls", -2))}
    assert len(prints) == 3 and all(len(one) == 16 for one in prints)


def test_differences_in_words():
    new = changed(
        identity__max_length=250, identity__weights={"model.safetensors": "f" * 64, "extra.safetensors": "e" * 64}
    )
    assert differences(ENCODER, new) == (
        "weights model.safetensors differs; weights extra.safetensors differs (not there before); "
        "max_length 128 in the cache, 250 asked"
    )
    gone = changed(identity__tokenizer={}, store="float32")
    assert differences(ENCODER, gone) == (
        "tokenizer tokenizer.json differs (not there now); store float16 in the cache, float32 asked"
    )
