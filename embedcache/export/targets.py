"""What each target's folder holds, and how others open it: no code of embedcache reads the model back."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from embedcache.encoder.folder import find_folder, read_json, tokenizer_files
from embedcache.encoder.model_parts import ALONE
from embedcache.encoder.poolings import POOLINGS
from embedcache.encoder.prescription import CONFIG, MODES
from embedcache.errors import EmbedcacheError
from embedcache.export.classifier_folder import write_classifier
from embedcache.export.model import TextModel, input_names, make_program
from embedcache.export.peft_folder import write_peft
from embedcache.export.place import write_json
from embedcache.export.steps import write_dense, write_step

if TYPE_CHECKING:
    from embedcache.encoder import Encoder

NAMES = ("0_Transformer", "1_Pooling")  # of the first modules' folders
ONE_FILE_BYTES = 1_900_000_000  # protobuf ends at 2 GiB; weights beyond go to a file of their own


def write_target(
    to: str, part: Path, model: TextModel, encoder: Encoder, texts: Sequence[str], base: str | None = None
) -> None:
    """Tokenizer, configuration and model.

    texts: a few, to trace the model with. base: where the base of a tuned encoder is now, if it has moved.
    """
    _write_tokenizer(encoder_folder(to, part), encoder)
    if to == "transformers":
        write_classifier(part, model, encoder)
        return
    if to == "peft":
        write_peft(part, model, encoder, base)
        return
    {"torch": _write_torch, "onnx": _write_onnx, "sentence-transformers": _write_modules}[to](
        part, model, encoder, texts
    )


def encoder_folder(to: str, part: Path) -> Path:
    """Where the encoder's configuration and the tokenizer go, made where it is missing.

    In a folder of its own for sentence-transformers: beside modules.json transformers' pipelines would take it for a
    whole classifier, and answer with a head of random weights.
    """
    folder = part / NAMES[0] if to == "sentence-transformers" else part
    folder.mkdir(exist_ok=True)
    return folder


def read_logits(
    to: str, folder: Path, texts: list[str], outputs: int, trust_remote_code: bool = False, prompt: str = ""
) -> np.ndarray:
    """Logits [n, outputs] of texts by the written model, in one padded batch.

    prompt: what its card says to put before every text; sentence-transformers does it by itself.
    """
    if to == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        modules = SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=trust_remote_code, local_files_only=True
        )
        return np.asarray(modules.encode(texts, batch_size=len(texts), show_progress_bar=False))
    from transformers import AutoTokenizer

    texts = [prompt + text for text in texts]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    if to in ("transformers", "peft"):
        with torch.inference_mode():
            return np.asarray(_classifier(to, folder, outputs)(**tokens).logits.numpy())
    if to == "torch":
        with torch.inference_mode():
            logits: np.ndarray = torch.export.load(folder / "model.pt2").module()(**tokens).numpy()
        return logits
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {name: ids.numpy() for name, ids in tokens.items()})[0])


def _classifier(to: str, folder: Path, outputs: int) -> Any:
    if to == "peft":
        from peft import AutoPeftModelForSequenceClassification as Auto

        return Auto.from_pretrained(str(folder), num_labels=outputs, local_files_only=True).eval()
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()


def _write_torch(part: Path, model: TextModel, encoder: Encoder, texts: Sequence[str]) -> None:
    encoder.model.config.to_json_file(part / "config.json")
    written = io.BytesIO()  # torch's own writer ends the process where a disk is full
    torch.export.save(make_program(model, encoder, texts)[0], written)
    (part / "model.pt2").write_bytes(written.getbuffer())


def _write_onnx(part: Path, model: TextModel, encoder: Encoder, texts: Sequence[str]) -> None:
    if time.time() < 0:
        raise EmbedcacheError(
            "the clock of this machine is before 1970, where ONNX Runtime waits forever: set the clock"
        )
    import onnx

    encoder.model.config.to_json_file(part / "config.json")
    program, shapes = make_program(model, encoder, texts)
    exported: Any = torch.onnx.export(
        program, dynamo=True, dynamic_shapes=shapes, input_names=list(shapes), output_names=["logits"], verbose=False
    )
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    exported.save(part / "model.onnx", external_data=size > ONE_FILE_BYTES)
    onnx.checker.check_model(str(part / "model.onnx"))


def _write_modules(part: Path, model: TextModel, encoder: Encoder, texts: Sequence[str]) -> None:
    """The layout and names of sentence-transformers 2, which later versions open too."""
    if len(set(model.layers)) > 1:
        raise EmbedcacheError(
            "this head reads several layers side by side, and sentence-transformers takes the last: use --to torch or "
            "--to onnx"
        )
    if not model.reads_last:
        raise EmbedcacheError(
            f"{encoder.identity['architecture']} encoders cannot be cut after layer {model.layers[0]} of "
            f"{encoder.layers}, which this head reads, and sentence-transformers takes the last: use --to torch or "
            "--to onnx"
        )
    if unknown := [name for name in model.poolings if POOLINGS[name].sentence_transformers is None]:
        raise EmbedcacheError(
            f"sentence-transformers has no {unknown[0]} pooling, which this head reads: use --to torch or --to onnx"
        )
    if encoder.identity.get("part") == "encoder" and encoder.identity["architecture"] not in ALONE:
        raise EmbedcacheError(
            f"sentence-transformers does not open the encoder of a {encoder.identity['architecture']} model alone: use "
            "--to torch or --to onnx"
        )
    inner = part / NAMES[0]
    model.encoder.save_pretrained(inner, safe_serialization=True)
    if "code" in encoder.identity:
        for path in find_folder(encoder.source, True)[0].glob("*.py"):
            shutil.copy(path, part)  # where transformers looks for it, although the configuration is further inside
    kinds, names = ["Transformer", "Pooling"], list(NAMES)
    for module in model.after:
        names.append(f"{len(names)}_{type(module).__name__}")
        kinds.append(write_step(part / names[-1], module))
    linear = [module for module in model.head if isinstance(module, nn.Linear)]
    for module in linear:
        names.append(f"{len(names)}_Dense")
        kinds.append("Dense")
        (part / names[-1]).mkdir()
        write_dense(part / names[-1], module, "linear.Identity" if module is linear[-1] else "activation.ReLU")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    write_json(part / "modules.json", modules)
    write_json(inner / "sentence_bert_config.json", {"max_seq_length": encoder.max_length, "do_lower_case": False})
    (part / names[1]).mkdir()
    settings = {name: one.sentence_transformers for name, one in POOLINGS.items()}
    modes = {setting: name in model.poolings for name, setting in settings.items() if setting}
    pooling: dict[str, Any] = {"word_embedding_dimension": encoder.dim, **modes}
    usual = [name for _, name in MODES.values() if name in model.poolings]
    if model.poolings != usual:  # only newer versions know another order
        new = {mode: name for name, (_, mode) in MODES.items()}
        pooling = {"embedding_dimension": encoder.dim, "pooling_mode": [new[name] for name in model.poolings]}
    write_json(part / names[1] / "config.json", pooling)
    if encoder.prompt:
        write_json(part / CONFIG, {"prompts": {"stored": encoder.prompt}, "default_prompt_name": "stored"})


def _write_tokenizer(part: Path, encoder: Encoder) -> None:
    """The encoder's own files, with its max_length and the model's inputs as what a plain call gives."""
    for path in tokenizer_files(find_folder(encoder.source, True)[0]):
        shutil.copy(path, part)
    fast, tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str()), encoder.tokenizer
    fast.enable_truncation(encoder.max_length, direction=tokenizer.truncation_side)
    pad = next(
        (one for one in (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) if one is not None), None
    )
    if pad is not None:  # any will do, behind the text and masked
        fast.enable_padding(pad_id=fast.token_to_id(pad), pad_token=pad)
    fast.save(str(part / "tokenizer.json"))
    config = part / "tokenizer_config.json"
    settings = read_json(config) if config.exists() else {}
    settings |= {"pad_token": pad} if tokenizer.pad_token is None and pad is not None else {}
    settings |= {"padding_side": "right"} if tokenizer.padding_side != "right" else {}
    settings |= {"model_max_length": encoder.max_length, "model_input_names": input_names(encoder)}
    settings.setdefault("tokenizer_class", type(tokenizer).__name__)
    write_json(config, settings)
