"""The code in a run's card: how the run is used, and the same model without embedcache."""

from __future__ import annotations

import json
from typing import Any

from embedcache.common.display import shorten
from embedcache.common.encoder_schema import imported_name
from embedcache.common.outputs import is_several
from embedcache.encoder.poolings import MODEL, POOLINGS
from embedcache.heads.kinds import kind_of
from embedcache.runs.folder import Run

USE = """classifier = ec.Classifier.load(".")
for prediction in classifier.predict(["A tender, funny film.", "Two hours of my life that I want back."]):
    print(prediction.label, prediction.probabilities)"""
CODE = """import json

import torch
from safetensors import safe_open{more}
{imports}

{vectors}

with safe_open("best.safetensors", framework="pt") as file:
    about = json.loads(file.metadata()["embedcache-head"])
    weights = {{name: file.get_tensor(name) for name in file.keys()}}
if "w1" in weights:
    vectors = torch.relu(vectors @ weights["w1"].T + weights["b1"])
logits = vectors @ weights["w2"].T + weights["b2"]
{ending}"""
ENCODER = """encoder = {encoder}  # its name, or the folder where it is
texts = ["A tender, funny film.", "Two hours of my life that I want back."]
{vectors}"""
POOLED = """tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
inputs = tokenizer({texts}, padding=True, truncation=True, max_length={max_length}, return_tensors="pt")
with torch.inference_mode():
    hidden = model(**inputs{more}).{hidden}
{pooled}"""
ROUNDED = {  # as the cache stores them
    "float16": "\nvectors = vectors.half().float()  # as the cache rounds them",
    "int8": "\nscales = vectors.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127\n"
    "vectors = (vectors / scales).round() * scales  # as the cache rounds them",
}
PRESCRIBED = """model = SentenceTransformer(encoder)
model.max_seq_length = {max_length}
vectors = model.encode(texts, {options}convert_to_tensor=True).float().cpu()"""
TUNED = """\n{}.load_state_dict(load_file("tuned.safetensors"), strict=False)  # what was trained of it"""
IMPORTED_USE = """import numpy

classifier = ec.Classifier.load(".", encode=False)
vectors = numpy.load("new.npy")  # [n, {dim}], made by {encoder} as the others were
for prediction in classifier.predict(vectors=vectors):
    print(prediction.label, prediction.probabilities)"""
IMPORTED = """vectors = torch.from_numpy(numpy.load("new.npy")).float()  # [n, {dim}], of {encoder} as the others were
texts = [f"vector {{i}}" for i in range(len(vectors))]"""


def use_of(info: dict[str, Any], encoder: str) -> str:
    """The lines that label something, with embedcache."""
    if imported_name(info["encoder"]) is None:
        return USE
    return IMPORTED_USE.format(dim=info["dim"], encoder=_plain(encoder))


def _plain(encoder: str) -> str:
    """A name in a comment."""
    return shorten(encoder).replace("`", "'")


def packages_of(info: dict[str, Any]) -> str:
    """What the code without embedcache needs."""
    if imported_name(info["encoder"]) is not None:
        return "numpy torch safetensors"
    if is_several(info["pooling"], info["layer"]):
        return "embedcache"
    return "sentence-transformers" if info["pooling"] == MODEL else "torch transformers safetensors"


def code_of(run: Run, encoder: str) -> str:
    """The same model in plain PyTorch, transformers and safetensors."""
    ending = kind_of(run.best.kind).example
    if imported_name(run.info["encoder"]) is not None:
        vectors = IMPORTED.format(dim=run.info["dim"], encoder=_plain(encoder)) + ROUNDED.get(run.info["dtype"], "")
        return CODE.format(imports="import numpy", more="", vectors=vectors, ending=ending)
    if is_several(run.info["pooling"], run.info["layer"]):
        return "# ec.Classifier.load(RUN) puts the vectors side by side"
    max_length = run.info["encoder"]["identity"]["max_length"]
    prescribed = run.info["pooling"] == MODEL
    tuned = run.info.get("tuned")
    if tuned and tuned["kind"] != "tensors":
        return f"# embedcache export RUN writes encoder, head and {tuned['kind']} weights as one model"
    vectors = (_prescribed if prescribed else _pooled)(run.info, max_length)
    vectors += ROUNDED.get(run.info["dtype"], "")
    if tuned:
        owner = "model[0].auto_model" if prescribed else "model"
        first = "\nmodel.max_seq_length" if prescribed else "\ninputs ="
        vectors = vectors.replace(first, TUNED.format(owner) + first, 1)
    return CODE.format(
        imports="from sentence_transformers import SentenceTransformer"
        if prescribed
        else "from transformers import AutoModel, AutoTokenizer",
        more="\nfrom safetensors.torch import load_file" if tuned else "",
        vectors=ENCODER.format(encoder=_quoted(encoder), vectors=vectors),
        ending=ending,
    )


def _pooled(info: dict[str, Any], max_length: int) -> str:
    """The lines that make vectors by a pooling."""
    layer, identity = int(info["layer"]), info["encoder"]["identity"]
    text = f"{_quoted(identity['prompt'])} + text" if identity.get("prompt") else "text"
    text = f"({text}).lower()" if identity.get("lower_case") else text
    return POOLED.format(
        texts="texts" if text == "text" else f"[{text} for text in texts]",
        max_length=max_length,
        more="" if layer == -1 else ", output_hidden_states=True",
        hidden="last_hidden_state" if layer == -1 else f"hidden_states[{layer}]",
        pooled=POOLINGS[info["pooling"]].code,
    )


def _prescribed(info: dict[str, Any], max_length: int) -> str:
    """The lines that make the vectors that the model's authors prescribe."""
    options = f"prompt={_quoted(info['encoder']['identity'].get('prompt', ''))}, "
    dims = info["encoder"][MODEL].get("dims")
    options += f"truncate_dim={dims}, normalize_embeddings=True, " if dims else ""
    return PRESCRIBED.format(max_length=max_length, options=options)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())
