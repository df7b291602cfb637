"""The whole pipeline on a made-up encoder in a temporary folder, each step compared with a few lines of NumPy."""

from __future__ import annotations

import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common import packages
from embedcache.doctor.checks import FAILED, MISSING, OK, Check
from embedcache.errors import EmbedcacheError

NEUTRAL = "a film with plot and cast that moves us in one scene after another of its hours".split()
GOOD, BAD = ("great", "warm", "fine", "wise"), ("dull", "thin", "mess", "loud")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WIDTH, HEADS, INNER, LAYERS, POSITIONS = 32, 4, 64, 2, 32
ROWS = 96
CLOSE = 2e-4  # of vectors: float32 in another order


def self_test() -> list[Check]:
    """One check a step; a step that needs a failed one is left out."""
    with tempfile.TemporaryDirectory(prefix="embedcache-doctor-") as folder:
        test, checks = _SelfTest(Path(folder)), []
        for step in (test.extract, test.verify, test.train, test.predict, test.search):
            start = time.perf_counter()
            try:
                found, status, advice = step(), OK, ""
            except Exception as error:
                status, advice = FAILED, "reinstall embedcache and its packages"
                found = str(error) if isinstance(error, EmbedcacheError) else f"{type(error).__name__}: {error}"
                if absent := packages.missing(error):
                    status, found, advice = MISSING, f"needs {absent[0]}", absent[1]
            seconds = time.perf_counter() - start
            checks.append(Check(f"self-test: {step.__name__}", status, f"{found}; {seconds:.2f} s", advice))
            if status != OK:
                break
        return checks


class _SelfTest:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.labels = ["good" if i % 2 else "bad" for i in range(ROWS)]
        self.texts = []
        for label in self.labels:
            words = [*rng.choice(NEUTRAL, int(rng.integers(2, 9))), *rng.choice(GOOD if label == "good" else BAD, 3)]
            self.texts.append(" ".join(map(str, rng.permutation(words))))
        self.vocabulary = {token: i for i, token in enumerate((*SPECIAL, *NEUTRAL, *GOOD, *BAD))}
        self.weights = _make_weights(rng, len(self.vocabulary))

    def extract(self) -> str:
        from embedcache.extraction.job import extract

        model, table = self.folder / "encoder", self.folder / "texts.csv"
        _write_encoder(model, self.weights, self.vocabulary)
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("text", "label"), *zip(self.texts, self.labels, strict=True)])
        self.cache = self.folder / "cache.h5"
        report = extract(
            [table], self.cache, model=str(model), max_length=POSITIONS, pooling=["cls", "mean"],
            dtype="float32", store="float32", device="cpu",
        )  # fmt: skip
        worst = self._worst_vector()
        if worst > CLOSE:
            raise EmbedcacheError(f"vectors are off by {worst:.1e}")
        return f"{report.encoded} texts, vectors within {worst:.0e} of NumPy's"

    def _worst_vector(self) -> float:
        from embedcache.cache import open_cache

        with open_cache(self.cache) as cache:
            stored = {pooling: np.array(cache.embeddings(pooling)) for pooling in ("cls", "mean")}
        worst = 0.0
        for row in range(0, ROWS, 7):
            ids = [self.vocabulary[token] for token in ("[CLS]", *self.texts[row].split(), "[SEP]")]
            hidden = _bert(self.weights, np.array(ids))
            for pooling, plain in (("cls", hidden[0]), ("mean", hidden.mean(axis=0))):
                worst = max(worst, float(np.abs(stored[pooling][row] - plain).max()))
        return worst

    def verify(self) -> str:
        from embedcache.cache import verify

        report = verify(self.cache)
        if not report.ok:
            raise EmbedcacheError("a fresh cache does not pass its own checksums")
        return f"{report.blocks} blocks"

    def train(self) -> str:
        from embedcache.cache import open_cache
        from embedcache.heads.spec import head_grid
        from embedcache.heads.train import train_heads

        with open_cache(self.cache) as cache:
            x = np.array(cache.embeddings("mean"))
        grid = head_grid(hidden=[0, 16], lr=[0.01, 0.02])
        result = train_heads(x, self.labels, grid, epochs=100, batch_size=16, standardize=True, device="cpu")
        if any(head.status == "cancelled" for head in result.heads):  # a bank ends with what is finished
            raise KeyboardInterrupt
        right = [float((head.predict(x) == np.array(self.labels)).mean()) for head in result.heads]
        if min(right) < 0.95:
            raise EmbedcacheError(f"a head learned {min(right):.0%} of rows that can all be learned")
        self.head, self.x = result.heads[-1], x
        return f"{len(right)} heads by {result.engine}, {min(right):.0%} learnt"

    def predict(self) -> str:
        from embedcache.heads.head import TrainedHead

        path = self.folder / "head.safetensors"
        self.head.save(path)
        head, w = TrainedHead.load(path), self.head.weights
        logits = np.maximum(self.x @ w["w1"].T + w["b1"], 0) @ w["w2"].T + w["b2"]
        plain = np.exp(logits - logits.max(axis=1, keepdims=True))
        worst = float(np.abs(head.predict_proba(self.x) - plain / plain.sum(axis=1, keepdims=True)).max())
        if worst > CLOSE:
            raise EmbedcacheError(f"probabilities are off by {worst:.1e}")
        return f"saved, loaded, probabilities within {worst:.0e} of NumPy's"

    def search(self) -> str:
        from embedcache.index import SearchIndex

        found = SearchIndex.from_vectors(self.x).search(self.x[:8], 5)
        unit = self.x / np.linalg.norm(self.x, axis=1, keepdims=True)
        plain = -np.sort(-(unit[:8] @ unit.T), axis=1)[:, :5]
        worst = float(np.abs(found.scores - plain).max())
        if worst > CLOSE:
            raise EmbedcacheError(f"cosines are off by {worst:.1e}")
        return f"5 neighbours of 8 rows, cosines within {worst:.0e} of NumPy's"


def _make_weights(rng: np.random.Generator, words: int) -> dict[str, np.ndarray]:
    """Random weights under the names of transformers' BertModel."""

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": draw(words, WIDTH),
        "embeddings.position_embeddings.weight": draw(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(2, WIDTH),
        "embeddings.LayerNorm.weight": 1 + draw(WIDTH),
        "embeddings.LayerNorm.bias": draw(WIDTH),
        "pooler.dense.weight": draw(WIDTH, WIDTH),
        "pooler.dense.bias": draw(WIDTH),
    }
    linear = {f"attention.self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (INNER, WIDTH)}
    linear |= {"output.dense": (WIDTH, INNER)}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for name, shape in linear.items():
            weights |= {f"{at}.{name}.weight": draw(*shape), f"{at}.{name}.bias": draw(shape[0])}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights |= {f"{at}.{name}.weight": 1 + draw(WIDTH), f"{at}.{name}.bias": draw(WIDTH)}
    return weights


def _write_encoder(folder: Path, weights: dict[str, np.ndarray], vocabulary: dict[str, int]) -> None:
    """The files of a BertModel as transformers saves them."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir()
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": len(vocabulary), "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "torch_dtype": "float32",
    }  # fmt: skip
    _write_json(folder / "config.json", config)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, **special}
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _bert(w: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The last layer's hidden states [n, WIDTH], float64: Devlin et al. (2019), as transformers has it, no dropout."""
    from scipy.special import erf, softmax

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(x @ w[f"{name}.weight"].T.astype(np.float64) + w[f"{name}.bias"])

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), HEADS, -1).transpose(1, 0, 2)

    at = "embeddings"
    x = w[f"{at}.word_embeddings.weight"][ids] + w[f"{at}.position_embeddings.weight"][: len(ids)]
    x = norm((x + w[f"{at}.token_type_embeddings.weight"][0]).astype(np.float64), f"{at}.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (heads(linear(x, f"{at}.attention.self.{name}")) for name in ("query", "key", "value"))
        mixed = np.asarray(softmax(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS), axis=-1) @ v)
        joined = mixed.transpose(1, 0, 2).reshape(x.shape)
        x = norm(x + linear(joined, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        gelu = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + linear(gelu, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x
