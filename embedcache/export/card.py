"""embedcache.json, the labels in config.json, and README.md: what an exported model is and how it is used."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache import __version__
from embedcache.common.outputs import BESIDE, Layer
from embedcache.encoder.folder import read_json
from embedcache.encoder.poolings import MODEL
from embedcache.export.place import ABOUT, FORMAT, write_json
from embedcache.heads.kinds import kind_of
from embedcache.report.card import SCORES, base_source, code_span, encoder_name, label_list, vectors_in_words
from embedcache.runs.folder import Run

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

VERSION = 1

CARD = """---
pipeline_tag: text-classification
library_name: {to}
---

# {title}

`{encoder}` ({vectors}), with a trained head on top: one float32 model. It reads texts of up to
{max_length:,} tokens (longer ones are cut) and gives {outputs}.

Labels: {labels}.

In this folder, after `pip install {packages}`:

```python
{code}
```
{more}
Written by embedcache {embedcache}, then opened as above and compared with the encoder and the head that it is made of:
on {texts} texts the largest difference of a {unit} was {difference:.1e}. The encoder's licence holds for it too.
{temperature}{scores}"""

CODE = """import json

{imports}

about = json.load(open("embedcache.json", encoding="utf-8"))
texts = ["A tender, funny film.", "Two hours of my life that I want back."]
{logits}
for text, row in zip(texts, logits):
    print({said}, text)"""
PROMPTED = '[about["prompt"] + text for text in texts]'
TOKENIZER = 'tokenizer = AutoTokenizer.from_pretrained(".")\ninputs = tokenizer(texts, padding=True, truncation=True, '
# Target -> packages, imports, and what makes the logits of texts.
USE = {
    "torch": (
        "'torch>={torch}' transformers",  # an older one does not read a newer one's file
        "import torch\nfrom transformers import AutoTokenizer",
        TOKENIZER + 'return_tensors="pt")\nlogits = torch.export.load("model.pt2").module()(**inputs).detach()',
    ),
    "onnx": (
        "onnxruntime transformers",
        "import onnxruntime\nfrom transformers import AutoTokenizer",
        TOKENIZER + 'return_tensors="np")\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        'logits = session.run(["logits"], dict(inputs))[0]',
    ),
    "transformers": (
        "torch transformers",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        TOKENIZER + 'return_tensors="pt")\n'
        'model = AutoModelForSequenceClassification.from_pretrained(".")\n'
        "logits = model(**inputs).logits.detach()",
    ),
    "peft": (
        "torch transformers peft",
        "from peft import AutoPeftModelForSequenceClassification\nfrom transformers import AutoTokenizer",
        TOKENIZER + 'return_tensors="pt")\n'
        'model = AutoPeftModelForSequenceClassification.from_pretrained(".", num_labels=len(about["labels"]))\n'
        "logits = model.eval()(**inputs).logits.detach()",
    ),
    "sentence-transformers": (
        "sentence-transformers",
        "from sentence_transformers import SentenceTransformer",
        'model = SentenceTransformer(".")\nlogits = model.encode(texts)',
    ),
}
CALIBRATION = """
Logits divided by {:.4f}, the temperature that was fitted on the validation rows, give calibrated probabilities.
"""
VECTORS = """
`encode` gives the logits. The vectors that the head reads are those of the first {modules} modules:

```python
vectors = SentenceTransformer(modules=list(model)[:{modules}]).encode(texts{prompt})
```
"""


BASE = """
`adapter_model.safetensors` holds LoRA's tensors and the classifier alone. The base is loaded from the place that
`adapter_config.json` names (`base_model_name_or_path`: change it where the base has moved), or give it to
`PeftModel.from_pretrained(base, ".")`, opened as AutoModelForSequenceClassification with so many `num_labels`.
"""


def label_config(folder: Path, kind: str, labels: list[str]) -> None:
    """Write the labels into config.json, where there is one, as transformers does."""
    if not (folder / "config.json").exists():
        return  # its labels are in embedcache.json alone
    config = read_json(folder / "config.json")
    config |= {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "problem_type": kind_of(kind).problem_type,
    }
    config |= {"label2id": {label: i for i, label in enumerate(labels)}}
    if not any(folder.glob("*.py")):
        config.pop("auto_map", None)  # the model's own code, which a graph needs no more
    write_json(folder / "config.json", config)


def write_card(folder: Path, run: Run, to: str, encoder: Encoder, checked: dict[str, Any]) -> None:
    """embedcache.json and README.md."""
    about = _describe(run, to, _layers(run, encoder), checked)
    write_json(folder / ABOUT, about)
    packages, imports, logits = USE[to]
    if any(folder.rglob("*.py")):
        logits = logits.replace('(".")', '(".", trust_remote_code=True)')
    if encoder.prompt:
        logits = logits.replace("tokenizer(texts,", f"tokenizer({PROMPTED},")
    steps = len(about["model"]["steps"]) if about["pooling"] == MODEL else 0
    prompt = ', prompt=about["prompt"]' if encoder.prompt else ""
    kind = kind_of(run.best.kind)
    scores = ", ".join(f"{SCORES[name]} {value:.4f}" for name, value in about["scores"].items())
    temperature = about["temperature"]
    fields = {
        **about,
        "title": f"{code_span(about['label'])} of a text",
        "labels": label_list(about["labels"]),
        "outputs": kind.exported,
        "packages": packages.format(**about["versions"]),
        "code": CODE.format(imports=imports, logits=logits, said=kind.exported_row),
        "vectors": vectors_in_words({**run.info, "layer": about["layer"]}),
        "more": {"sentence-transformers": VECTORS.format(modules=2 + steps, prompt=prompt), "peft": BASE}.get(to, ""),
        "texts": checked["texts"],
        "unit": "probability" if kind.has_classes else "value, as a share of the largest one,",
        "difference": checked["max_difference"],
        "temperature": CALIBRATION.format(temperature) if temperature else "",
        "scores": f"\nOn the test rows of its training: {scores}.\n" if scores else "",
    }
    (folder / "README.md").write_text(CARD.format(**fields), "utf-8")


def _layers(run: Run, encoder: Encoder) -> Layer:
    """What the head reads, counted from 1: a number, or several as text, "12+9"."""
    layer = run.info["layer"]
    if isinstance(layer, int):
        return encoder.layer_number(layer)
    return BESIDE.join(str(encoder.layer_number(int(one))) for one in layer.split(BESIDE))


def _describe(run: Run, to: str, layer: Layer, checked: dict[str, Any]) -> dict[str, Any]:
    best = run.info.get("best", {})
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "embedcache": __version__,
        "to": to,
        "kind": run.best.kind,
        "label": run.info.get("label") or "label",
        "labels": run.classes,
        "activation": kind_of(run.best.kind).activation,
        "encoder": encoder_name(base_source(run.info)),
        "identity": run.info["encoder"]["identity"],
        "pooling": run.info["pooling"],
        "model": run.info["encoder"].get(MODEL) if run.info["pooling"] == MODEL else None,
        "prompt": run.info["encoder"]["identity"].get("prompt", ""),
        "layer": layer,
        "max_length": run.info["encoder"]["identity"]["max_length"],
        "temperature": best.get("temperature"),
        "scores": {name: best[name] for name in SCORES if isinstance(best.get(name), float)},
        "checked": checked,
        "versions": {name: metadata.version(name).split("+")[0] for name in ("torch", "transformers")},
    }
