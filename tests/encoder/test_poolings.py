"""Each pooling is what sentence-transformers and its own lines in the model card make of the same tokens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.cache.file import Cache
from embedcache.encoder import Encoder
from embedcache.encoder.poolings import POOLINGS, Pooling, find_pooling
from embedcache.encoder.runner_native import TOKENS, backend
from embedcache.errors import EmbedcacheError
from tests.conftest import make_reviews

ROOT = Path(__file__).resolve().parents[2]
PAGE, HEADER = ROOT / "docs" / "extraction.md", ROOT / "csrc" / "encoder" / "encoder.h"
LENGTHS = [5, 1, 7, 3]


@pytest.fixture
def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [4, 7, 6], all below 0 and wild at the padding, and their mask."""
    hidden = -torch.rand(len(LENGTHS), max(LENGTHS), 6, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(hidden.shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    hidden[mask == 0] = 1e3
    return hidden, mask


def pools(name: str, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    found = find_pooling(name).pool(hidden, mask)
    assert found.dtype == torch.float32
    return found


@pytest.mark.parametrize("name", [name for name, one in POOLINGS.items() if one.sentence_transformers])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_sentence_transformers_pools(
    padded: tuple[torch.Tensor, torch.Tensor], name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    from sentence_transformers import models

    settings = [one.sentence_transformers for one in POOLINGS.values() if one.sentence_transformers]
    modes = {setting: setting == find_pooling(name).sentence_transformers for setting in settings}
    (tmp_path / "config.json").write_text(json.dumps({"word_embedding_dimension": 6, **modes}))
    hidden, mask = padded[0].to(dtype), padded[1]
    theirs = models.Pooling.load(str(tmp_path))
    wanted = theirs({"token_embeddings": hidden.float(), "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(pools(name, hidden, mask), wanted)


@pytest.mark.parametrize("name", [name for name, one in POOLINGS.items() if one.packed])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_rows_at_once(padded: tuple[torch.Tensor, torch.Tensor], name: str, dtype: torch.dtype) -> None:
    """Rows one after another, as a GPU pools them, give what the padded ones give."""
    hidden, mask = padded[0].to(dtype), padded[1]
    places = torch.cat([torch.arange(length, dtype=torch.int32) for length in LENGTHS])
    packed = find_pooling(name).packed
    assert packed is not None
    found = packed(hidden[mask == 1], torch.tensor(LENGTHS), places)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pools(name, hidden, mask))


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_changes_nothing(padded: tuple[torch.Tensor, torch.Tensor], name: str) -> None:
    hidden, mask = padded
    together = pools(name, hidden, mask)
    for row, length, found in zip(hidden, LENGTHS, together, strict=True):
        torch.testing.assert_close(pools(name, row[None, :length], None)[0], found)
    first = all(torch.equal(vector, row[0]) for vector, row in zip(together, hidden, strict=True))
    assert first == find_pooling(name).first_token


@pytest.mark.parametrize("name", POOLINGS)
def test_the_cards_lines_do_the_same(padded: tuple[torch.Tensor, torch.Tensor], name: str) -> None:
    names: dict[str, Any] = {"hidden": padded[0], "inputs": {"attention_mask": padded[1]}, "torch": torch}
    exec(find_pooling(name).code, names)
    torch.testing.assert_close(names["vectors"], pools(name, *padded))


def test_the_native_codes_are_those_of_the_header() -> None:
    enum = re.search(r"enum \{\s*(EC_POOL_TOKENS.*?)\};", HEADER.read_text("utf-8"), re.DOTALL)
    assert enum
    codes = {name: int(code) for name, code in re.findall(r"EC_POOL_(\w+) = (-?\d+)", enum[1])}
    assert codes.pop("TOKENS") == TOKENS
    assert codes == {name.upper(): one.native for name, one in POOLINGS.items() if one.native is not None}


def test_an_unknown_name() -> None:
    with pytest.raises(EmbedcacheError, match=f"unknown pooling 'median': choose from {', '.join(POOLINGS)}"):
        find_pooling("median")


def docs_table() -> str:
    lines = [
        "| `--pooling` | the vector | last layer for | in sentence-transformers |",
        f"|{' --- |' * 4}",
    ]
    for name, one in POOLINGS.items():
        theirs = f"`{one.sentence_transformers}`" if one.sentence_transformers else "-"
        lines.append(f"| `{name}` | {one.help} | {'one token' if one.first_token else 'all tokens'} | {theirs} |")
    return "\n".join(lines)


def test_the_page_lists_the_poolings() -> None:
    found = re.search(r"<!-- poolings -->\n(.*?)\n<!-- end -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert found and found[1] == docs_table(), f"docs/extraction.md should have\n{docs_table()}"


# A newcomer's pooling: one record, without native code. What the command line then does with it.
NEWCOMER = """
import json, sys
from embedcache.encoder.poolings import POOLINGS, Pooling

def median(hidden, mask):
    hidden = hidden.float()
    if mask is not None:
        hidden = hidden.masked_fill(mask.unsqueeze(-1) == 0, float("nan"))
    return hidden.nanmedian(1).values

POOLINGS["median"] = Pooling("the median of all tokens' vectors", median, code="vectors = hidden.median(1).values")
from embedcache.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as stop:
        print("exit", stop.code)
"""


def test_a_newcomers_pooling_end_to_end(tiny_bert: Path, tmp_path: Path) -> None:
    """In the help, the cache, the run, its card and its predictions; refused where an export has no place for it."""
    texts = [text for text, _ in make_reviews(60)]
    rows = [{"text": text, "label": label} for text, label in make_reviews(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract = ["extract", str(tmp_path / "rows.jsonl"), "--model", str(tiny_bert), "--max-length", "64", "--json"]
    extract += ["--pooling", "cls,median", "--store", "float32", "--dtype", "float32", "--device", "cpu"]
    cache, run = str(tmp_path / "cache.h5"), str(tmp_path / "run")
    heads = ["--pooling", "median", "--hidden", "8", "--epochs", "2", "--json"]
    commands = [
        ["extract", "--help"],
        [*extract, "-o", cache],
        ["train-head", cache, "-o", run, *heads],
        ["predict", run, "a superb film", "--json"],
        ["export", run, "--to", "sentence-transformers", "-o", str(tmp_path / "out")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", NEWCOMER, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    assert re.findall(r"^exit (\d)$", done.stdout, re.MULTILINE) == ["0", "0", "0", "0", "1"], done.stderr
    assert "the median of all tokens' vectors" in " ".join(done.stdout.split())
    assert "sentence-transformers has no median pooling" in done.stderr
    assert "vectors = hidden.median(1).values" in (tmp_path / "run" / "README.md").read_text("utf-8")
    found = Cache(cache).embeddings("median")
    encoder = Encoder.load(tiny_bert, max_length=64, dtype="float32", device="cpu")
    states = [encoder.model(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in encoder.tokenize(texts).ids]
    wanted = np.stack([np.sort(tokens, axis=0)[(len(tokens) - 1) // 2] for tokens in states])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kernel", ["native", "packed", "plain"])
def test_a_newcomers_pooling_on_every_kernel(tiny_bert: Path, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def last(hidden: Any, mask: Any) -> Any:
        lengths = torch.full((len(hidden),), hidden.shape[1]) if mask is None else mask.sum(1)
        return hidden[torch.arange(len(hidden)), lengths - 1].float()

    if kernel == "native" and not backend("float32"):
        pytest.skip("this processor has no AVX2")
    encoder = Encoder.load(tiny_bert, max_length=64, dtype="float32", device="cpu", kernel=kernel)
    ids = encoder.tokenize([text for text, _ in make_reviews(9)]).ids
    monkeypatch.setitem(POOLINGS, "final", Pooling("the last token's vector", last, code=""))
    found = encoder.encode(ids, [("final", -1), ("cls", -1), ("final", 1)])
    with torch.inference_mode():
        every = [encoder.model(torch.tensor([row]), output_hidden_states=True).hidden_states for row in ids]
    for got, layer, token in zip(found, (2, 2, 1), (-1, 0, -1), strict=True):
        np.testing.assert_allclose(got, np.stack([states[layer][0, token] for states in every]), atol=1e-5)
