"""--labels: names and descriptions, from the line, a file, a list or a dict; what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.prompting.labels import TextLabel, read_labels

FRESH, ROTTEN = TextLabel("fresh", ("a good film", "a joy")), TextLabel("rotten", ("rotten",))


@pytest.mark.parametrize(
    "given",
    [
        "fresh: a good film | a joy; rotten",
        " fresh :a good film|a joy ;rotten;",
        {"fresh": ["a good film", "a joy"], "rotten": "rotten"},
        {" fresh ": ("a good film ", "a joy"), "rotten": ["rotten"]},
    ],
)
def test_the_same_labels(given: Any) -> None:
    assert read_labels(given) == [FRESH, ROTTEN]


def test_a_file_has_a_label_a_line(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\ufeff# two labels\nfresh: a good film | a joy\n\nrotten\n", encoding="utf-8")
    assert read_labels(f"@{file}") == [FRESH, ROTTEN]
    file.write_text("a: one; two\nb", encoding="utf-8")
    assert read_labels(f"@{file}")[0].descriptions == ("one; two",)
    file.write_bytes(b"a: \xff\nb")
    with pytest.raises(EmbedcacheError, match="is not UTF-8 text"):
        read_labels(f"@{file}")


def test_names_alone() -> None:
    for given in (["fresh", "rotten"], "fresh,rotten", "fresh; rotten", [TextLabel("fresh", ("fresh",)), ROTTEN]):
        assert read_labels(given) == [TextLabel("fresh", ("fresh",)), ROTTEN]
    assert read_labels("fresh, or not; rotten")[0].name == "fresh, or not"
    assert read_labels("rotten", fewest=1) == [ROTTEN]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "at least two labels must be named, there is none"),
        ("fresh: good", "at least two labels must be named, there is only 'fresh'"),
        ([], "at least two labels"),
        ("a; a", "label 'a' is named twice"),
        ("a: good; b: Good", "labels 'a' and 'b' have the same description 'Good'"),
        ("a: b; b", "labels 'a' and 'b' have the same description"),
        ("a: x | x; b", "label 'a' has twice the same description 'x'"),
        ("a: ; b", "label 'a' has an empty description"),
        ("a: x | ; b", "label 'a' has an empty description"),
        (": x; b", "a label has no name, only the description 'x'"),
        ({"a": [], "b": "x"}, "label 'a' has an empty description"),
        ("@no/such/file.txt", "--labels @no/such/file.txt: No such file"),
    ],
)
def test_refused(given: Any, said: str) -> None:
    with pytest.raises(EmbedcacheError) as error:
        read_labels(given)
    assert said in str(error.value) and "\n" not in str(error.value)
