"""A run's encoder and best head as ONE model that the ecosystem's own loaders open, checked after it is written.

Files, in the order in which to read them:

    model     The encoder, the pooling and the head as one torch module, and that module as a torch.export program
    steps     What follows the pooling in a prescribed vector, as modules of sentence-transformers
    classifier_folder  A folder for AutoModelForSequenceClassification, where its classifier can compute our head
    peft_folder  LoRA's tensors and such a classifier, for PEFT's loaders
    targets   What each target's folder holds, and how a stranger opens it
    place     Where an export goes: a folder that appears whole or not at all
    card      embedcache.json, the labels in config.json, and README.md: what an exported model is and how it is used
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.callable_module import make_callable
from embedcache.common.int8_rows import as_stored
from embedcache.common.outputs import Layer, is_several, poolings_in
from embedcache.common.whole_folder import folder_lock
from embedcache.encoder.poolings import MODEL
from embedcache.errors import EmbedcacheError
from embedcache.export import card, place
from embedcache.heads.kinds import kind_of
from embedcache.runs.calibration import probabilities
from embedcache.runs.folder import Run, load_run, require_keys

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

# Target -> packages that it needs beyond embedcache's own.
TARGETS = {
    "torch": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "sentence-transformers": ("sentence_transformers",),
    "transformers": (),
    "peft": ("peft",),
}
EXTRAS = {"peft": "peft"}  # target -> the extra that installs its packages; others: export
# Differences of a probability; of a value, as a share of the largest one.
TOLERANCE = 1e-4  # to the same encoder and head in float32
# To predict, which rounds the vectors as the cache does; a head that this changes more depends on noise.
ROUNDING = 1e-2
# What every written model is tried on: lengths from nothing to longer than any max_length, and more than one script.
TEXTS = [
    "",
    "Fine.",
    "A tender, funny film that stays with you for days.",
    "Zwei Stunden meines Lebens; ein Kind würde sich langweilen!",
    "映画は素晴らしかった。また見たい。 🎬",
    "영화가 별로였다: 4/10, and I'd say no",
    "slow " * 2000 + "and long",
]
SHORT_TEXTS = TEXTS[1:4]  # for tracing, which needs no long ones


@dataclass(frozen=True)
class ExportReport:
    """What export_run wrote.

    Attributes:
        run, to, output: as asked. files: their names in ``output``. bytes: of all of them. seconds: the call took.
        checked: how many "texts" were tried; "max_difference" of a probability (of a value: as a share of the largest)
            to the encoder and head in float32; and "rounding", the same to vectors rounded as the cache holds them.
    """

    run: str
    to: str
    output: str
    files: list[str]
    bytes: int
    checked: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


def export_run(
    run: str | Path,
    output: str | Path,
    to: str,
    *,
    model: str | Path | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> ExportReport:
    """Write the encoder and the best head of a run as one model, a folder at ``output``.

    The written model is opened again with its ecosystem's loader, without embedcache, and compared on texts of many
    lengths, in one padded batch and alone: probabilities (a regression's values) may differ by 1e-4 from those of this
    encoder and head in float32. ``Classifier.predict`` also rounds the vectors as the cache does (float16), which
    shows in the fourth decimal; where it shows in the second, the head is refused.

    Args:
        run: a run directory of one label column; of several, name one of its folders.
        output: the folder to make; it appears whole or not at all.
        to: "torch" (model.pt2, for torch.export.load), "onnx" (model.onnx), "sentence-transformers", "transformers"
            (for AutoModelForSequenceClassification, where its classifier can compute this head), or "peft" (the same
            as an adapter beside its base, of a run of finetune --train lora).
        model: the encoder's folder or name, if it has moved since the cache was made.
        overwrite: replace an export that is at ``output``; anything else there is never touched.
        trust_remote_code: whether Python code that comes with the encoder may run.

    Raises:
        EmbedcacheError: there is no such run or target; a package is missing; the encoder is gone or a different one;
            ``output`` exists; this encoder cannot be exported to this target, or the written model gives other results.
    """
    start = time.perf_counter()
    if to not in TARGETS:
        raise EmbedcacheError(f"cannot export to '{to}': use {', '.join(TARGETS)}")
    for package in TARGETS[to]:
        if importlib.util.find_spec(package) is None:
            extra = EXTRAS.get(to, "export")
            raise EmbedcacheError(f'--to {to}: {package} is not installed; pip install "embedcache[{extra}]"')
    output = Path(output)
    place.check_target(output, overwrite)
    with folder_lock(output):
        loaded = _load_one_column(run)
        encoder = _load_encoder(loaded, model, trust_remote_code)
        with place.staged(output) as part:
            place.check_space(part, output, sum(array.nbytes for array in encoder.model.state_dict().values()))
            checked = _write(part, loaded, encoder, to, trust_remote_code, None if model is None else str(model))
            card.write_card(part, loaded, to, encoder, checked)
            files = place.list_files(part)
    size = sum((output / name).stat().st_size for name in files)
    return ExportReport(str(run), to, str(output), files, size, checked, time.perf_counter() - start)


def _load_one_column(path: str | Path) -> Run:
    run = load_run(path)
    if len(run.columns) > 1:
        choices = ", ".join(f"{column!r}: {one.path}" for column, one in run.columns.items())
        raise EmbedcacheError(f"{path} has a head for each of several label columns: name the run of one ({choices})")
    return run


def _load_encoder(run: Run, model: str | Path | None, trust_remote_code: bool) -> Encoder:
    """The run's encoder, checked by content as predict does, but always in float32."""
    from embedcache.encoder.load_again import encoder_of

    require_keys(run, "encoder", "pooling", "layer", "dtype")
    about = run.info["encoder"]
    if about["identity"].get("chunk"):
        raise EmbedcacheError(
            f"{run.path} reads long texts in chunks (--chunk), which no exported model does: train on a cache without "
            "--chunk, or use predict and serve"
        )
    plain = {name: value for name, value in about["identity"].items() if name != "kept"}
    exact = {**about, "identity": {**plain, "compute_dtype": "float32"}}
    options: dict[str, Any] = {"device": "cpu", "trust_remote_code": trust_remote_code}
    return encoder_of(exact, str(run.path), run.info["pooling"], model=model, has_option=True, **options)


def _write(
    part: Path, run: Run, encoder: Encoder, to: str, trust_remote_code: bool, base: str | None
) -> dict[str, Any]:
    """Fill the folder, open it again as others would, and return what was checked on TEXTS."""
    from embedcache.export.model import exporting, make_model
    from embedcache.export.targets import read_logits, write_target

    (pooling, layer), kind = _output(run), run.best.kind
    (vectors,) = encoder.encode_tokens(encoder.tokenize(TEXTS), [(pooling, layer)])
    expected, rounded = run.best.logits(vectors), run.best.logits(as_stored(vectors, run.info["dtype"]))
    rounding = largest_difference(kind, expected, rounded)
    if not rounding <= ROUNDING:
        raise EmbedcacheError(
            f"the head of {run.path} depends on digits that the cache's {run.info['dtype']} rounds away: they change "
            f"its results by {rounding:.2g}; train it again, with a lower --lr or on a cache of --store float32"
        )
    if not encoder.tokenizer.is_fast:
        raise EmbedcacheError(
            f"the tokenizer of {encoder.source} has no fast version (tokenizer.json), which an exported model needs"
        )
    with exporting(to, encoder):
        model = make_model(encoder, run.best, pooling, layer, SHORT_TEXTS)
        write_target(to, part, model, encoder, SHORT_TEXTS, base)
        card.label_config(part, kind, run.classes)
        how = {"outputs": expected.shape[1], "trust_remote_code": trust_remote_code, "prompt": encoder.prompt}
        together, alone = (read_logits(to, part, texts, **how) for texts in (TEXTS, SHORT_TEXTS[:1]))
    at = TEXTS.index(SHORT_TEXTS[0])
    difference = max(
        largest_difference(kind, together, expected), largest_difference(kind, alone, expected[at : at + 1])
    )
    if not difference <= TOLERANCE:
        raise EmbedcacheError(
            f"the {to} model gives other results than {run.path}, by up to {difference:.2g}: nothing was written; "
            f"try another --to, or another version of {' or '.join(TARGETS[to] or ('torch',))}"
        )
    return {"texts": len(TEXTS), "max_difference": difference, "rounding": rounding}


def _output(run: Run) -> tuple[str, Layer]:
    """What its head reads. Raises EmbedcacheError where no exported model puts that side by side."""
    pooling, layer = run.info["pooling"], run.info["layer"]
    if is_several(pooling, layer) and MODEL in poolings_in([pooling]):
        raise EmbedcacheError(
            f"the head of {run.path} reads {pooling} vectors of layer {layer}, side by side, which no exported model "
            "does: train with --pooling without model, such as cls+mean, or use predict and serve"
        )
    return pooling, layer


def largest_difference(kind: str, found: np.ndarray, expected: np.ndarray) -> float:
    """Between the probabilities of two arrays of logits [n, C]; between values, as a share of the largest expected."""
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    if not kind_of(kind).has_classes:
        return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
    return float(np.abs(probabilities(a, kind) - probabilities(b, kind)).max())


make_callable(__name__, "embedcache.export", "export_run")
