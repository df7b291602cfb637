"""Causal models, encoder-decoders, retrievers: row by row what transformers and sentence-transformers make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache.file import Cache
from embedcache.encoder import Encoder
from embedcache.encoder.kinds import (
    ALSO_CAUSAL,
    BIDIRECTIONAL,
    CAUSAL,
    CAUSAL_TYPES,
    ENCODER,
    ENCODER_DECODER,
    THEIR_DECODER,
    THEIR_ENCODER,
    kind_of,
)
from embedcache.encoder.prescription import read_prescription
from embedcache.errors import EmbedcacheError
from tests.conftest import document, fails, make_reviews, write_csv
from tests.encoder import tiny_kinds
from tests.encoder.sentence_folders import NORMALIZE, dense, make_folder, write_json
from tests.encoder.test_prescription import MODEL, assert_same, load

TEXTS = ["superb", *(text for text, _ in make_reviews(7)), "A DULL Film " * 40, "映画 🍿", " it is  (long) "]
OUTPUTS = [("last", -1), ("mean", -1), ("mean", 1)]
# Of these sentence-transformers takes the decoder's states, or a pooled vector, or (6.2) leaves the encoder's weights
# random.
THEIRS_DIFFER = ("Bart", "MBart", "DPR", "M2M100", "Marian", "Pegasus")
LAST = {"pooling_mode_lasttoken": True}


def kinds(known: dict[str, tiny_kinds.Tiny]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if one.slow else name for name, one in known.items()]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny_kinds.write_kind(tmp_path_factory.mktemp("kind"), kind)
        return made[kind]

    return make


def one_by_one(folder: Path, kind: str, texts: list[str]) -> list[np.ndarray]:
    """Each text alone through AutoTokenizer and transformers' own class, for each of OUTPUTS."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    name = tiny_kinds.ALL[kind].model or "AutoModel"
    name = "T5EncoderModel" if kind == "T5" else name
    model = getattr(transformers, name).from_pretrained(folder).eval()
    model = model.ctx_encoder.bert_model if kind == "DPR" else model
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    rows: list[list[np.ndarray]] = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            found = model(input_ids=ids, output_hidden_states=True, return_dict=True)
        states = [(found.last_hidden_state if k == -1 else found.hidden_states[k])[0] for _, k in OUTPUTS]
        rows.append([(s[-1] if p == "last" else s.mean(0)).numpy() for s, (p, _) in zip(states, OUTPUTS, strict=True)])
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("kind", kinds(tiny_kinds.ALL))
def test_rows_are_those_of_transformers(kind: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(kind)
    encoder = Encoder.load(folder, max_length=64, dtype="float32", device="cpu")
    for found, wanted in zip(encoder.encode_texts(TEXTS, OUTPUTS), one_by_one(folder, kind, TEXTS), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
        assert np.ptp(wanted, axis=0).max() > 1e-3
    causal, first = kind in tiny_kinds.CAUSAL, tiny_kinds.ALL[kind].before
    assert bool(encoder.no_cls) == (causal or not first)
    if encoder.no_cls:
        said = "a causal model, whose first token" if causal else "puts no CLS token before a text"
        with pytest.raises(EmbedcacheError, match=f"no cls vectors: .*{said}"):
            encoder.encode_texts(TEXTS, [("cls", -1)])
    wanted_kind = CAUSAL if causal else BIDIRECTIONAL if kind == "EmbeddingGemma" else None
    assert wanted_kind in (None, kind_of(json.loads((folder / "config.json").read_text())))


def prescribed(kind: str, base: Path, to: Path) -> Path:
    prompts = {"prompts": {"query": "Instruct: find it\nQuery: "}, "default_prompt_name": "query"}
    width = 16 if kind == "OPT" else 32
    after = [NORMALIZE] if kind in tiny_kinds.CAUSAL else [dense(32, 24), dense(24, 16, bias=False), NORMALIZE]
    pooling = {"word_embedding_dimension": width, **(LAST if kind in tiny_kinds.CAUSAL else {})}
    return make_folder(base, to, pooling, *after, settings={"max_seq_length": 60}, config=prompts)


@pytest.mark.parametrize(
    "kind", kinds({name: one for name, one in tiny_kinds.ALL.items() if name not in THEIRS_DIFFER})
)
def test_rows_are_those_of_sentence_transformers(kind: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """With an instruction before each text, on tokenizers that pad on the left, EOS where the post-processor has it."""
    from sentence_transformers import SentenceTransformer

    folder = prescribed(kind, folder_of(kind), tmp_path)
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    theirs.tokenizer.pad_token = "[PAD]"  # it cannot do without one
    wanted = theirs.encode(TEXTS, batch_size=1, show_progress_bar=False)
    encoder = load(folder)
    assert encoder.prompt.startswith("Instruct: ")
    assert_same(encoder.encode_texts(TEXTS, MODEL)[0], wanted)


def test_padding_of_theirs_on_the_left(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    (tmp_path / "base").mkdir()
    base = tiny_kinds.write_kind(tmp_path / "base", "Qwen3")
    config = json.loads((base / "tokenizer_config.json").read_text())
    write_json(base / "tokenizer_config.json", {**config, "pad_token": "[PAD]"})
    folder = prescribed("Qwen3", base, tmp_path / "folder")
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert theirs.tokenizer.padding_side == "left"
    assert_same(load(folder).encode_texts(TEXTS, MODEL)[0], theirs.encode(TEXTS, batch_size=5, show_progress_bar=False))


def test_a_text_without_any_token(folder_of: Callable[[str], Path]) -> None:
    encoder = Encoder.load(folder_of("GPT2"), max_length=64, dtype="float32", device="cpu")
    together = encoder.encode_texts(["", "superb", "  "], [("last", -1), ("max", 0)])
    for found, wanted in zip(together, encoder.encode_texts(["superb"], [("last", -1), ("max", 0)]), strict=True):
        np.testing.assert_allclose(found[1:2], wanted, atol=1e-5)
        assert not found[[0, 2]].any()
    assert not encoder.encode_texts([""], [("mean", -1)])[0].any()


def test_extract_says_what_it_stores(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """``last`` of a causal folder that prescribes nothing, the mean of an encoder-decoder; cls is refused."""
    table = tmp_path / "rows.csv"
    write_csv(table, [(text, "x") for text in TEXTS])
    for kind, pooling, said in (
        ("GPT2", "last", "stored last (the last token's vector, the only one that has seen the whole text): it is a "
                         "causal model, and"),
        ("T5", "mean", "stored mean (the mean of its encoder's vectors; the decoder is not used): it is an "),
    ):  # fmt: skip
        about = document(
            "extract", table, "-o", tmp_path / f"{kind}.h5", "--model", folder_of(kind), "--max-length", 64
        )
        assert Cache(tmp_path / f"{kind}.h5").poolings == [pooling]
        assert any(note.startswith(said) for note in about["notes"])
    line = fails(
        "extract",
        table,
        "-o",
        tmp_path / "cls.h5",
        "--model",
        folder_of("GPT2"),
        "--pooling",
        "cls",
        "--max-length",
        64,
    )
    assert "is a causal model, whose first token does not see the text: use last or mean" in line
    assert not (tmp_path / "cls.h5").exists()
    folder = prescribed("GPT2", folder_of("GPT2"), tmp_path / "prescribed")
    document("extract", table, "-o", tmp_path / "model.h5", "--model", folder)
    assert Cache(tmp_path / "model.h5").poolings == ["last", "model"]


def test_states_of_a_decoder_are_refused(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = make_folder(folder_of("Bart"), tmp_path, {})
    with pytest.raises(EmbedcacheError, match=r"\(bart\): sentence-transformers pools the states of its decoder"):
        read_prescription(folder, "it")


def test_attention_that_transformers_does_not_do(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """A setting that the installed code does not know would be a causal model, silently."""
    folder = tiny_kinds.write_kind(tmp_path, "GPT2", use_bidirectional_attention=True)
    assert kind_of(json.loads((folder / "config.json").read_text())) is BIDIRECTIONAL
    with pytest.raises(EmbedcacheError, match=r"asks for bidirectional attention, which the installed version"):
        Encoder.load(folder, max_length=64, device="cpu", dtype="float32")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Nystromformer": ({"segment_means_seq_length": 64}, r"\(nystromformer\) reads texts of exactly 64 tokens"),
    "Canine": ({}, r"\(canine\) reads characters"),
    "NomicBert": ({"rotary_emb_base": 7000}, r"\(nomic_bert\): its config.json has rotary_emb_base 7000, but"),
    "Xmod": ({}, r"\(xmod\): transformers' code for this architecture does not return vectors"),
    "Bert": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"its weights are quantized"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_gets_one_line(kind: str, tmp_path: Path) -> None:
    import transformers

    from tests.conftest import write_tokenizer

    more, said = REFUSED[kind]
    settings = {**tiny_kinds.SIZES, "vocab_size": write_tokenizer(tmp_path, 64) + 8, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**settings)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text()) | more)
    with pytest.raises(EmbedcacheError, match=said) as caught:
        Encoder.load(tmp_path, max_length=64, dtype="float32", device="cpu")
    assert "\n" not in str(caught.value) and "Error" not in str(caught.value)


def test_the_lists_agree_with_transformers() -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto as auto

    causal, masked = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    known = {kind for kind in CAUSAL_TYPES if kind in CONFIG_MAPPING}
    assert len(known) > 50
    assert {kind for kind in known if kind not in causal or kind in masked} == set()
    both = THEIR_ENCODER | THEIR_DECODER
    assert {kind for kind in both if not CONFIG_MAPPING[kind]().is_encoder_decoder} == set()
    assert not both & (CAUSAL_TYPES | ALSO_CAUSAL)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "bert"}, ENCODER),
        ({"model_type": "bert", "is_decoder": True}, CAUSAL),
        ({"model_type": "new", "architectures": ["NewForCausalLM"]}, CAUSAL),
        ({"model_type": "qwen2", "is_causal": False}, BIDIRECTIONAL),
        ({"model_type": "t5", "is_encoder_decoder": False}, ENCODER_DECODER),
        ({"model_type": "new", "is_encoder_decoder": True}, ENCODER_DECODER),
        ({"model_type": ["x"], "architectures": "y"}, ENCODER),
    ],
    ids=str,
)
def test_kinds_by_their_configuration(config: dict[str, Any], kind: Any) -> None:
    assert kind_of(config) is kind
