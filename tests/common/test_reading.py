"""Reading: what is lost and what is not known, counted and said."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache.common.reading import Reading, most_unknown, percent, read_of, scripts_of


def counts(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.int32)


def test_shares_are_of_tokens() -> None:
    reading = read_of(counts((100, 0), (300, 10), (600, 0)), truncated=2, max_length=250, positions=512)
    assert (reading.tokens, reading.lost, reading.longest) == (1000, 50 + 350, 600)
    assert reading.lost_share == pytest.approx(0.4)
    assert reading.unknown_share == pytest.approx(10 / 600)
    assert reading.lost_at_limit == 88
    assert reading.to_dict()["lost_share"] == reading.lost_share


@pytest.mark.parametrize(
    ("longest", "max_length", "positions", "said"),
    [
        (300, 250, 512, "--max-length 300 reads them whole"),
        (800, 250, 512, "raise --max-length to 512, this model's limit (36% are lost then)"),
        (800, 512, 512, "512 is this model's limit"),
        (800, 250, None, "a higher --max-length reads more, if the model can"),
    ],
)
def test_the_advice_fits_the_model(longest: int, max_length: int, positions: int | None, said: str) -> None:
    (note,) = read_of(counts((longest, 0)), 1, max_length, positions).notes()
    assert note.startswith(f"1 of 1 texts are longer than {max_length} tokens; ") and said in note
    assert said not in read_of(counts((longest, 0)), 1, max_length, positions).notes(advise=False)[0]


def test_nothing_is_said_of_texts_that_are_read_whole() -> None:
    assert read_of(counts((20, 0), (250, 1)), 0, 250).notes() == []


def test_unknown_tokens_are_said_from_a_few_percent_on() -> None:
    assert read_of(counts(*[(100, 1)] * 200), 0, 250).notes() == []
    (note,) = read_of(counts(*[(100, 3)] * 200), 0, 250, texts=["映画は素晴らしい"]).notes()
    assert "3% of the tokens read (600 of 20,000)" in note and "Han (Chinese characters), Hiragana" in note


def test_some_texts_that_are_hardly_known_are_said_among_many_that_are() -> None:
    many = counts(*[(100, 0)] * 196, *[(20, 10)] * 4)
    assert read_of(many, 0, 250).unknown_share < 0.02
    (note,) = read_of(many, 0, 250).notes()
    assert "in 4 texts a fifth or more" in note


def test_tokens_that_nobody_counted_are_not_guessed() -> None:
    reading = read_of(counts((-1, -1), (300, 0)), truncated=2, max_length=250)
    assert (reading.texts, reading.counted, reading.tokens, reading.truncated) == (2, 1, 300, 2)
    (note,) = read_of(counts((-1, -1)), truncated=1, max_length=250).notes()
    assert "was not counted" in note and "%" not in note


def test_two_readings_add_up() -> None:
    one, two = read_of(counts((300, 60)), 1, 250, texts=["ж"]), read_of(counts((10, 0)), 0, 250)
    both = one + two
    assert isinstance(both, Reading)
    assert both == read_of(counts((300, 60), (10, 0)), 1, 250, texts=["ж"])


def test_scripts_are_named_as_unicode_does() -> None:
    assert scripts_of(["Ужасно скучно", "good", "😴"]) == ("Cyrillic", "emoji and symbols")
    assert scripts_of(["plain text, 123"]) == ()
    assert most_unknown(counts((5, 0), (5, 1), (5, 3), (-1, -1))).tolist() == [2, 1]


def test_percent() -> None:
    assert [percent(x) for x in (0, 0.0004, 0.004, 0.14, 1)] == ["0%", "less than 0.1%", "0.4%", "14%", "100%"]
