"""Fixtures that several test modules share: tiny encoders built on the spot, small tables of real-looking text."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from embedcache.cli import main
from embedcache.encoder.poolings import POOLINGS
from tests.not_on_windows import reason_of

# Triton reads it when it is imported, by transformers, too. With no GPU at hand its interpreter runs the kernels.
if not Path("/proc/driver/nvidia").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Started in the background of a shell, the programs under test would inherit that Ctrl-C is ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FOUR_HEADS = ("--lr", "1e-3,1e-2", "--hidden", "0,16", "--epochs", 15)  # of the runs that several modules share
WORDS = (
    "a about actor and bad best boring brilliant but comedy dialogue director dull ending ever every fails "
    "film fine for from good great hardly has heart horror hour i in is it its lacks less like long love made "
    "masterpiece mess more most movie music never nice no not of on one only plot poor romance scene script "
    "she slow so story superb terrible than that the they thin this to too very was watch waste weak who with "
    "wonderful world worst worth you "
).split()


def write_tokenizer(folder: Path, max_length: int = 512) -> int:
    """A WordPiece vocabulary of whole words, letters and ``##`` letters; returns its size."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *WORDS[1:]]
    vocab = list(dict.fromkeys(vocab))
    ids = {word: i for i, word in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.add_special_tokens(vocab[:5])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocab)


def write_tiny_bert(folder: Path) -> None:
    """A random 2-layer, 32-wide BertModel and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    vocab_size = write_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    BertModel(config).eval().save_pretrained(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if sys.platform == "win32" else ():
        if reason := reason_of(item.nodeid.partition("[")[0]):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one block on every machine, so that tests know after which rows something is saved."""
    monkeypatch.setattr("embedcache.extraction.local.CORES_PER_BLOCK", 1 << 20)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT, which loads in milliseconds."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    write_tiny_bert(folder)
    return folder


class TinyModels(dict[str, Path]):
    """Family -> folder of a 2-layer, 32-wide model of it, with 130 positions (BERT: 512), made when it is asked for."""

    def __init__(self, parent: pytest.TempPathFactory, tiny_bert: Path) -> None:
        super().__init__(bert=tiny_bert)
        self._parent = parent

    def __missing__(self, family: str) -> Path:
        import torch
        import transformers

        from embedcache.encoder.families import FAMILIES

        known = FAMILIES[family]
        name = known.model.rpartition(".")[2]
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        settings = {known.keys.get(key, key): value for key, value in sizes.items()}
        settings |= {"initializer_range": 0.2, "max_position_embeddings": 130, **known.settings}
        folder = self[family] = self._parent.mktemp(f"tiny-{family}")
        settings |= {"vocab_size": write_tokenizer(folder), "pad_token_id": 0 if known.behind is None else 1}
        if known.behind is not None:  # positions are counted by the pad id, which is 1 there
            swap_first_two_tokens(folder / "tokenizer.json")
        torch.manual_seed(1)
        config = getattr(transformers, f"{name.removesuffix('Model')}Config")(**settings)
        getattr(transformers, name)(config).eval().save_pretrained(folder)
        return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """See TinyModels."""
    return TinyModels(tmp_path_factory, tiny_bert)


def swap_first_two_tokens(path: Path) -> None:
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    vocab["[PAD]"], vocab["[UNK]"] = vocab["[UNK]"], vocab["[PAD]"]
    for token in tokenizer["added_tokens"]:
        token["id"] = vocab[token["content"]]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


@pytest.fixture
def bert_copy(tmp_path: Path, tiny_bert: Path) -> Path:
    """A copy of the tiny BERT that a test may spoil."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert-copy"))


def make_reviews(n: int) -> list[tuple[str, str]]:
    """n different (text, label) pairs, lengths from 3 to 40 words, deterministic."""
    import numpy as np

    rng = np.random.default_rng(0)
    good, bad = ["great", "superb", "wonderful", "best"], ["dull", "terrible", "boring", "worst"]
    rows = []
    for i in range(n):
        label = "positive" if i % 2 else "negative"
        words = rng.choice(WORDS, size=int(rng.integers(3, 40))).tolist()
        words[int(rng.integers(len(words)))] = str(rng.choice(good if i % 2 else bad))
        rows.append((" ".join([*words, str(i)]), label))
    return rows


@pytest.fixture
def reviews_csv(tmp_path: Path) -> Path:
    """300 labelled texts as text,label."""
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(make_reviews(300))
    return path


def make_cache(path, texts, vectors, labels=None, *, columns=None, id=None, encoder=None, incomplete=False):
    """Write a complete cache without any encoder and return its path.

    vectors: [N, D] (stored as ``cls``) or {"cls": [N, D], "mean": [N, D]}, float16, float32 or Int8Rows, kept as they
    are.
    labels: {"label": ["positive", None, ...], "topics": [["a", "b"], [], None, ...]}, None is a missing label. columns:
    {"movie": [...]} kept values; ``id``
    names the one of them that is the id column. encoder: parts of the encoder description to replace, such as
    ``{"source": str(tiny_bert)}``. incomplete: leave out the last block's checksum.
    """
    import hashlib

    import numpy as np

    from embedcache.cache.create import Writer, create, make_contents
    from embedcache.cache.labels import LabelCoder
    from embedcache.cache.stored_rows import joined
    from embedcache.common.int8_rows import Int8Rows, stored_type

    def pack(strings):
        raw = [text.encode() for text in strings]
        offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        return np.frombuffer(b"".join(raw), np.uint8), offsets

    if not isinstance(vectors, dict):
        vectors = {"cls": vectors}
    vectors = {name: x if isinstance(x, Int8Rows) else np.asarray(x) for name, x in vectors.items()}
    x = next(iter(vectors.values()))
    texts = list(texts)
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    hashes = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    coded = {}
    for name, values in (labels or {}).items():
        coder = LabelCoder()
        coder.add([tuple(value) if isinstance(value, list) else value for value in values])
        coded[name] = coder.finish(path.parent)
    identity = {"weights": {"model.safetensors": "0" * 64}, "max_length": 250, "compute_dtype": "float32"}
    encoder = {"source": "made-up-encoder", "identity": identity, "store": stored_type(x), **(encoder or {})}
    packed = {name: pack(values) for name, values in (columns or {}).items()}
    outputs = [(name, -1) for name in vectors]
    widths = dict(zip(outputs, (one.shape[1] for one in vectors.values()), strict=True))
    create(path, make_contents(hashes, pack(texts), coded, packed, encoder, widths, id))
    with Writer(path) as writer:
        blocks = writer.cache.layout.blocks
        for name, x in vectors.items():
            writer.put_vectors(f"embeddings/{name}", 0, joined(x.values, x.scales) if isinstance(x, Int8Rows) else x)
            writer.commit(f"embeddings/{name}", 0, blocks - incomplete)
        writer.sync()
    return path


# ---- the command line ----

POLYGLOT = [
    "映画は素晴らしかった。また見たい。",
    "Ужасно скучно 😴🍿",
    "فيلم رائع للغاية",
    "סרט נהדר",
    "e\u0301galite\u0301 \u200d👩‍👩‍👧",
]


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def document(*arguments: Any) -> Any:
    """The JSON of a command that must succeed; stdout holds nothing else."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(*arguments: Any, code: int = 1) -> str:
    """The one error line of a command that must fail."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: "), result.stderr
    if code == 1:
        assert result.stderr.strip().count("\n") == 0, "one line"
        assert result.stdout == ""
    return line


def write_csv(path: Path, rows: Iterable[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with reviews.csv, reviews.h5 and a run, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("made")
    reviews = [(text, label, f"film {i // 5}") for i, (text, label) in enumerate(make_reviews(200))]
    reviews += [(text, "positive", "world") for text in POLYGLOT]
    write_csv(folder / "reviews.csv", reviews, ("text", "label", "film"))
    document(
        "extract", folder / "reviews.csv", "-o", folder / "reviews.h5", "--model", tiny_bert,
        "--keep", "film", "--pooling", ",".join(POOLINGS),
    )  # fmt: skip
    document("train-head", folder / "reviews.h5", "-o", folder / "run", *FOUR_HEADS)
    return folder


@pytest.fixture
def extract(tiny_bert: Path, tmp_path: Path) -> Callable[..., list[Any]]:
    """Arguments of an extract into cache.h5 of this test's folder."""

    def arguments(path: Path, *more: Any) -> list[Any]:
        return ["extract", path, "-o", tmp_path / "cache.h5", "--model", tiny_bert, *more]

    return arguments
