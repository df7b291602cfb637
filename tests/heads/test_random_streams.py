from __future__ import annotations

import numpy as np

from embedcache.heads import random_streams
from tests.heads.float64_reference import philox_words


def test_known_answers() -> None:
    """From the kat_vectors of the authors' Random123."""
    assert philox_words(0, 0, 0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert philox_words(2**64 - 1, ones, ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    digits_of_pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    words = [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    assert philox_words(0x299F31D0A4093822, *digits_of_pi) == words


def test_vectorised_as_scalar() -> None:
    seed = 0x123456789ABCDEF
    words = random_streams.philox(seed, np.arange(5)[:, None], np.arange(3), 7, random_streams.DROPOUT)
    for i in range(5):
        for j in range(3):
            assert words[:, i, j].tolist() == philox_words(seed, i, j, 7, 2)


def test_streams_are_as_specified() -> None:
    """Element by element from the table in csrc/heads/numerics.h."""
    seed = 2**40 + 3
    weights = random_streams.initial_weights(seed, {"w1": (5, 7), "b1": (5,), "w2": (3, 5), "b2": (3,)})
    for tensor, name in enumerate(("w1", "b1", "w2", "b2")):
        bound = np.float32(1 / np.sqrt(7 if name[1] == "1" else 5))
        for e, value in enumerate(weights[name].ravel()):
            word = philox_words(seed, e // 4, 0, tensor, 0)[e % 4]
            assert value == (np.float32(word >> 8) * np.float32(2**-23) - np.float32(1)) * bound
    keys = [philox_words(seed, i // 4, 0, 9, 1)[i % 4] for i in range(50)]
    assert random_streams.shuffle(seed, 9, 50).tolist() == sorted(range(50), key=lambda i: (keys[i], i))
    kept = random_streams.dropout_kept(seed, 11, 2, 150, 0.3)
    for row in range(2):
        for unit in range(150):
            word = philox_words(seed, unit // 64 * 16 + unit % 16, row, 11, 2)[unit % 64 // 16]
            assert kept[row, unit] == (word >= int(0.3 * 2**32))


def test_streams_look_random() -> None:
    order = random_streams.shuffle(0, 0, 100_000)
    assert (np.sort(order) == np.arange(100_000)).all()
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02
    assert (random_streams.shuffle(0, 1, 1000) != random_streams.shuffle(0, 0, 1000)).mean() > 0.9
    kept = random_streams.dropout_kept(1, 0, 200, 512, 0.1)
    assert abs(kept.mean() - 0.9) < 0.005
    weights = random_streams.initial_weights(0, {"w1": (64, 100), "b1": (64,), "w2": (2, 64), "b2": (2,)})
    assert abs(weights["w1"]).max() <= 0.1
    assert abs(weights["w1"].std() - 0.1 / np.sqrt(3)) < 0.002
