"""What export writes is opened by the ecosystem's own loaders and gives what the encoder and the head give."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoder.poolings import POOLINGS
from embedcache.errors import EmbedcacheError
from embedcache.export import TARGETS, export_run, targets
from embedcache.prediction.classifier import Classifier
from tests.conftest import document, fails, make_reviews, write_tokenizer

TEXTS = ["superb", *(text for text, _ in make_reviews(15)), "", "映画 🍿", "a dull film " * 60]
MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> MakeRun:
    """Options of train-head -> a run on a tiny encoder, made by the commands; equal ones are made once."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [
        {"text": text, "label": label, "topics": ["odd"] * (i % 2) + ["third"] * (i % 3 == 0), "stars": i % 7 - 2.5}
        for i, (text, label) in enumerate(make_reviews(80))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(family: str = "bert", *options: Any, label: str = "label", dtype: str = "float32") -> Path:
        cache = folder / f"{family}-{dtype}.h5"
        run = folder / re.sub(r"\W+", "_", " ".join(map(str, ("run", family, dtype, label, *options))))
        if not cache.exists():
            document(
                "extract", folder / "rows.jsonl", "-o", cache, "--model", tiny_models[family], "--dtype", dtype,
                "--label", "label,topics,stars", "--pooling", ",".join(POOLINGS), "--layers", "-1,1,0",
                "--max-length", "64",
            )  # fmt: skip
        if not run.exists():
            settings = {"--hidden": "8", "--epochs": "2", "--lr": "1e-2", "--label": label}
            settings |= dict(zip(options[::2], options[1::2], strict=True))
            document("train-head", cache, "-o", run, *(part for pair in settings.items() for part in pair))
        return run

    return make


def wanted(run: Path, texts: list[str]) -> np.ndarray:
    """Logits by embedcache, of vectors that no cache has rounded."""
    classifier = Classifier.load(run, "cpu")
    info = classifier.run.info
    (vectors,) = classifier.encoder.encode_texts(texts, [(info["pooling"], info["layer"])])
    return classifier.run.best.logits(vectors)


def given(to: str, folder: Path, texts: list[str]) -> np.ndarray:
    """Logits by the ecosystem's loaders, in one padded batch."""
    if to == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(texts, batch_size=len(texts)))
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    if to == "torch":
        import torch

        return torch.export.load(folder / "model.pt2").module()(**inputs).detach().numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return np.asarray(session.run(None, {name: ids.numpy() for name, ids in inputs.items()})[0])


def assert_same(to: str, folder: Path, run: Path) -> None:
    expected = wanted(run, TEXTS)
    assert np.abs(given(to, folder, TEXTS) - expected).max() < 1e-4
    assert np.abs(given(to, folder, TEXTS[:1]) - expected[:1]).max() < 1e-4
    assert np.ptp(expected, axis=0).min() > 0.01, "texts that all get the same would prove nothing"


def slow(to: str, family: str) -> Any:
    """A tracer takes seconds: by default one family each."""
    fast = {"torch": ["mpnet"], "onnx": ["bert"]}
    return pytest.mark.slow if family not in fast.get(to, [family]) else ()


@pytest.mark.parametrize(
    ("to", "family", "pooling"),
    [
        pytest.param(to, family, pooling, marks=slow(to, family))
        for to in TARGETS
        if to not in ("transformers", "peft")
        for family, pooling in zip(("bert", "roberta", "mpnet", "distilbert"), cycle(POOLINGS), strict=False)
    ],
)
def test_every_family_to_every_target(to: str, family: str, pooling: str, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(family, "--pooling", pooling)
    report = export_run(run, tmp_path / "out", to)
    assert_same(to, tmp_path / "out", run)
    assert report.checked["max_difference"] < 1e-5
    about = json.loads((tmp_path / "out" / "embedcache.json").read_text("utf-8"))
    assert (about["labels"], about["pooling"], about["max_length"]) == (["negative", "positive"], pooling, 64)
    if to != "sentence-transformers":  # which has the encoder's alone, and no place for labels
        config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
        assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert str(tmp_path.parent) not in json.dumps(about), "no path of this machine"


@pytest.mark.parametrize(
    ("to", "label", "task"),
    [
        ("torch", "topics", "multilabel"),
        pytest.param("onnx", "label", "classification", marks=pytest.mark.slow),
        pytest.param("sentence-transformers", "stars", "regression", marks=pytest.mark.slow),
    ],
)
def test_the_cards_lines_work_without_embedcache(
    to: str, label: str, task: str, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("bert", "--task", task, label=label)
    export_run(run, tmp_path / "out", to)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    code = f"import sys\nsys.modules['embedcache'] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    texts = re.findall(r'"(.*?)"', re.search(r"texts = \[(.*)\]", code)[1])
    predictions = Classifier.load(run, "cpu").predict(texts)
    lines = done.stdout.splitlines()
    assert len(lines) == len(texts) == 2
    for line, one in zip(lines, predictions, strict=True):
        said = line.removesuffix(f" {one.text}")
        if task == "regression":
            assert float(re.search(r": (.*)}", said)[1]) == pytest.approx(one.label, abs=2e-2)
        else:
            assert said == str(one.label)
    assert task in json.loads((tmp_path / "out" / "embedcache.json").read_text("utf-8"))["kind"]


@pytest.mark.parametrize(
    ("to", "family", "layer", "pooling"),
    [
        ("torch", "roberta", 1, "mean"),
        pytest.param("torch", "bert", 0, "mean", marks=pytest.mark.slow),
        ("sentence-transformers", "bert", 1, "cls"),
        ("sentence-transformers", "distilbert", 1, "mean"),
    ],
)
def test_an_inner_layer_is_the_end(
    to: str, family: str, layer: int, pooling: str, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(family, "--layers", layer, "--pooling", pooling)
    export_run(run, tmp_path / "out", to)
    assert_same(to, tmp_path / "out", run)
    if to == "torch":
        import torch

        names = list(torch.export.load(tmp_path / "out" / "model.pt2").state_dict)
    else:
        from safetensors import safe_open

        with safe_open(tmp_path / "out" / "0_Transformer" / "model.safetensors", "np") as file:
            names = list(file.keys())
    assert {int(found[1]) for name in names if (found := re.search(r"layer\.(\d+)", name))} == set(range(layer))


def test_an_architecture_that_cannot_be_cut(tmp_path: Path) -> None:
    """ModernBERT puts a norm after its last layer: the graph stops where the head reads, a shorter model cannot."""
    import torch
    from transformers import ModernBertConfig, ModernBertModel

    folder = tmp_path / "modernbert"
    folder.mkdir()
    tokens = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = ModernBertConfig(
        vocab_size=write_tokenizer(folder), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=130, initializer_range=0.2, **tokens,
    )  # fmt: skip
    torch.manual_seed(0)
    ModernBertModel(config).eval().save_pretrained(folder)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in make_reviews(60)))
    cache, run = tmp_path / "cache.h5", tmp_path / "run"
    document("extract", rows, "-o", cache, "--model", folder, "--layers", "1", "--max-length", "64")
    document("train-head", cache, "-o", run, "--layers", "1", "--hidden", "8", "--epochs", "2", "--lr", "1e-2")
    line = fails("export", run, "--to", "sentence-transformers", "-o", tmp_path / "out")
    assert "modernbert encoders cannot be cut after layer 1 of 2" in line and "--to torch" in line
    assert not (tmp_path / "out").exists()
    export_run(run, tmp_path / "out", "torch")
    assert_same("torch", tmp_path / "out", run)


OWN_CODE = """
from transformers import BertConfig, BertModel

class OwnConfig(BertConfig):
    model_type = "own-bert"

class OwnModel(BertModel):
    config_class = OwnConfig
"""


def test_an_encoder_with_code_of_its_own(bert_copy: Path, tmp_path: Path) -> None:
    """It goes along where the model is loaded with it, and is needed no more where a graph stands for it."""
    (bert_copy / "own_bert.py").write_text(OWN_CODE)
    config = json.loads((bert_copy / "config.json").read_text())
    config |= {"model_type": "own-bert"}
    config |= {"auto_map": {"AutoConfig": "own_bert.OwnConfig", "AutoModel": "own_bert.OwnModel"}}
    (bert_copy / "config.json").write_text(json.dumps(config))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in make_reviews(60)))
    cache, run, out, trust = tmp_path / "cache.h5", tmp_path / "run", tmp_path / "out", "--trust-remote-code"
    document("extract", rows, "-o", cache, "--model", bert_copy, "--max-length", "64", trust)
    document("train-head", cache, "-o", run, "--hidden", "8", "--epochs", "2", "--lr", "1e-2")
    assert "--trust-remote-code" in fails("export", run, "--to", "sentence-transformers", "-o", out)
    files = document("export", run, "--to", "sentence-transformers", "-o", out, trust)["files"]
    assert "own_bert.py" in files and "trust_remote_code=True" in (out / "README.md").read_text("utf-8")
    document("export", run, "--to", "torch", "-o", out, trust, "--overwrite")
    assert not list(out.glob("*.py")) and "auto_map" not in (out / "config.json").read_text("utf-8")
    assert given("torch", out, TEXTS).shape == (len(TEXTS), 2)


@pytest.mark.parametrize("to", ["torch", "sentence-transformers"])
def test_transformers_pipeline_does_not_make_a_random_classifier_of_it(
    to: str, make_run: MakeRun, tmp_path: Path
) -> None:
    """It refuses the folder; the encoder inside knows nothing of the run's labels."""
    from transformers import pipeline

    export_run(make_run("bert"), tmp_path / "out", to)
    with pytest.raises((ValueError, OSError)):
        pipeline("text-classification", model=str(tmp_path / "out"))
    for path in (tmp_path / "out").glob("0_Transformer/*.json"):
        assert "positive" not in json.loads(path.read_text("utf-8")).get("id2label", {}).values()


def test_a_linear_probe_is_one_dense(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("bert", "--hidden", "0")
    report = export_run(run, tmp_path / "out", "sentence-transformers")
    assert_same("sentence-transformers", tmp_path / "out", run)
    assert [name for name in report.files if "Dense" in name] == ["2_Dense/config.json", "2_Dense/model.safetensors"]


def test_the_first_two_modules_are_the_encoder(make_run: MakeRun, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    run = make_run("bert", "--pooling", "mean")
    export_run(run, tmp_path / "out", "sentence-transformers")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert model.max_seq_length == 64
    vectors = SentenceTransformer(modules=list(model)[:2], device="cpu").encode(TEXTS)
    assert np.allclose(vectors, Classifier.load(run, "cpu").encode(TEXTS), atol=2e-3)


def test_a_bfloat16_run_is_exported_in_float32(make_run: MakeRun, tmp_path: Path) -> None:
    import torch

    export_run(make_run("bert", dtype="bfloat16"), tmp_path / "out", "torch")
    program = torch.export.load(tmp_path / "out" / "model.pt2")
    assert {value.dtype for value in program.state_dict.values() if value.is_floating_point()} == {torch.float32}


def test_tokenizer_json_alone_cuts_and_pads(make_run: MakeRun, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    run = make_run("roberta")
    export_run(run, tmp_path / "out", "torch")
    rows = [one.ids for one in Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode_batch(TEXTS)]
    ids, _ = (encoder := Classifier.load(run, "cpu").encoder).pad(encoder.tokenize(TEXTS).ids)
    assert rows == ids.tolist()


@pytest.mark.slow
def test_weights_too_large_for_one_onnx_file(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "ONE_FILE_BYTES", 0)
    run = make_run("distilbert")
    report = export_run(run, tmp_path / "out", "onnx")
    assert "model.onnx.data" in report.files
    assert_same("onnx", tmp_path / "out", run)


def test_the_command(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "new" / "out"
    report = document("export", run, "--to", "sentence-transformers", "-o", out)
    assert report.keys() >= {"run", "to", "output", "files", "checked"}
    assert 0 <= report["checked"]["max_difference"] < 1e-5 < report["checked"]["rounding"] < 1e-2
    assert (report["to"], report["output"], report["checked"]["texts"]) == ("sentence-transformers", str(out), 7)
    assert report["files"] == sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert report["bytes"] == sum((out / name).stat().st_size for name in report["files"])
    assert len({(out / name).stat().st_mode for name in report["files"]}) == 1
    assert "exists already" in fails("export", run, "--to", "torch", "-o", out)
    (out / "stale").touch()
    document("export", run, "--to", "torch", "-o", out, "--overwrite")
    assert (out / "model.pt2").exists() and not (out / "stale").exists() and not (out / "modules.json").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_bad_input(make_run: MakeRun, tmp_path: Path, tiny_bert: Path) -> None:
    run, out = make_run(), tmp_path / "out"
    to_torch = ("--to", "torch", "-o", out)
    assert "'pickle'" in fails("export", run, "--to", "pickle", "-o", out, code=2)
    with pytest.raises(EmbedcacheError, match="cannot export to 'pickle': use torch, onnx, sentence-transformers"):
        export_run(run, out, "pickle")
    assert "no run at" in fails("export", tmp_path / "none", *to_torch)
    assert "train it again" in fails("export", tiny_bert, *to_torch)
    assert "--model FOLDER" in fails("export", run, *to_torch, "--model", tmp_path / "gone")
    (tmp_path / "file").touch()
    assert "is a file" in fails("export", run, "--to", "torch", "-o", tmp_path / "file")
    assert "cannot write" in fails("export", run, "--to", "torch", "-o", tmp_path / "file" / "out")
    for options in ((), ("--overwrite",)):
        assert "is not an embedcache export; nothing was changed" in fails(
            "export", run, "--to", "torch", "-o", tiny_bert, *options
        )
    several = make_run("bert", label="label,topics")
    line = fails("export", several, *to_torch)
    assert "several label columns" in line and f"'topics': {several / 'topics'}" in line
    assert not out.exists()
    moved = Path(shutil.copytree(tiny_bert, tmp_path / "moved"))
    document("export", several / "topics", "--to", "sentence-transformers", "-o", out, "--model", moved)


@pytest.mark.parametrize(
    ("to", "package"), [("onnx", "onnxruntime"), ("sentence-transformers", "sentence_transformers")]
)
def test_a_package_that_lacks(
    to: str, package: str, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = fails("export", make_run(), "--to", to, "-o", tmp_path / "out")
    assert package in line and 'pip install "embedcache[export]"' in line


def test_a_model_that_differs_is_not_kept(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = make_run(), tmp_path / "out"
    export_run(run, out, "sentence-transformers")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    honest = targets.write_dense

    def spoilt(folder: Path, module: Any, *more: Any, **settings: Any) -> None:
        module.bias[0] += 0.01
        honest(folder, module, *more, **settings)

    monkeypatch.setattr(targets, "write_dense", spoilt)
    with pytest.raises(EmbedcacheError, match=r"gives other results .* nothing was written"):
        export_run(run, out, "sentence-transformers", overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_head_that_leans_on_rounded_digits(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.export.ROUNDING", 1e-6)
    line = fails("export", make_run(), "--to", "torch", "-o", tmp_path / "out")
    assert "depends on digits that the cache's float16 rounds away" in line


def test_what_a_tracer_raises_is_one_line(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("cannot trace\n  this graph")

    monkeypatch.setattr(targets, "make_program", refuse)
    line = fails("export", make_run(), "--to", "torch", "-o", tmp_path / "out")
    assert "the bert encoder cannot be exported to torch" in line and "cannot trace this graph" in line
    assert not any(tmp_path.iterdir())
