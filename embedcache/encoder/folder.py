"""Where an encoder's files are, whether they are complete, and its identity: the hashes of their content.

Nothing here imports torch or transformers: an extract that finds nothing new never loads a model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from embedcache.common.tensors import tensor_names
from embedcache.encoder.adapter_files import ADAPTER, ADAPTER_WEIGHTS, task_adapter
from embedcache.encoder.families import FAMILIES, behind_id
from embedcache.encoder.file_hashes import weights_sha256
from embedcache.encoder.hardware import cpu_computes_bfloat16, resolve_device
from embedcache.encoder.hub import download
from embedcache.encoder.kinds import ENCODER_DECODER, OWN_POSITIONS, STATIC_TYPE, kind_of
from embedcache.encoder.tuned import Tuned, find_tuned
from embedcache.errors import EmbedcacheError

DTYPES = ("float32", "bfloat16", "float16", "int8")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)
STATIC = "StaticEmbedding"  # sentence-transformers' module for a table of token vectors
STATIC_WEIGHTS = frozenset(("embedding.weight", "embeddings", "mapping", "weights"))
UNCONFIGURED = (".Normalize", ".Dropout", f".{STATIC}")  # modules that need no config.json
# Keys about a file's origin, which do not change a vector: a model that is saved again stays the same model.
ORIGIN_KEYS = frozenset(
    "_name_or_path name_or_path _commit_hash transformers_version torch_dtype dtype tokenizer_file "
    "special_tokens_map_file".split()
)
ADAPTER_ORIGIN = frozenset(("base_model_name_or_path", "revision", "peft_version"))
INT8_VERSION = 2  # in fingerprints: how csrc/encoder/int8_rows.h rounds; caches of another version have other bits


def identify(
    source: str | Path,
    *,
    max_length: int = 250,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    prompt: str = "",
    lower_case: bool = False,
    chunk: bool = False,
    task: str = "",
    kept: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:
    """Identify an encoder by its content, without loading it. The arguments are those of ``Encoder.load``.

    Returns:
        (identity, source). The identity is a JSON-able dict of all that changes a vector: sha256 of the weights, of
        the tokenizer's files and of the configuration, of the model's own code where that is trusted, max_length,
        compute_dtype and in int8 the products kept out of it, the prompt before each text, whether texts are lowercased
        and whether they are read in chunks, and the adapter of a task. It holds no path, name or time. The source is
        the absolute folder or the hub name for ``Encoder.load``.

    Raises:
        EmbedcacheError: the encoder is not found or files are missing; a bad max_length, dtype or device.
    """
    folder, name = find_folder(source, trust_remote_code)
    settings: dict[str, Any] = {"prompt": prompt, "lower_case": lower_case, "chunk": chunk, "task": task, "kept": kept}
    compute_dtype = resolve_dtype(dtype, device, folder)
    settings["tuned"] = find_tuned(source)
    return folder_identity(folder, max_length, compute_dtype, trust_remote_code, **settings), name


def positions_of(folder: Path) -> int | None:
    """The most tokens per text that the configuration allows, special tokens included; None: no limit.

    In some families the position table begins after the pad token.
    """
    config = model_config(folder)
    setting = OWN_POSITIONS.get(str(config.get("model_type")), "max_position_embeddings")
    positions, behind = config.get(setting), behind_id(config)
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions if behind is None else positions - behind - 1


def folder_identity(
    folder: Path,
    max_length: int,
    compute_dtype: str,
    trust_remote_code: bool,
    *,
    prompt: str = "",
    lower_case: bool = False,
    chunk: bool = False,
    task: str = "",
    tuned: Tuned | None = None,
    kept: Sequence[str] = (),
) -> dict[str, Any]:
    """The identity of the encoder in a complete folder."""
    check_max_length(max_length)
    config = model_config(folder)
    identity: dict[str, Any] = {
        "architecture": config.get("model_type", "unknown"),
        "config": _config_sha256({} if is_static(folder) else config),
        "weights": {path.name: _sha256(path) for path in weight_files(folder)},
        "tokenizer": {path.name: _sha256(path) for path in tokenizer_files(folder)},
        "max_length": max_length,
        "compute_dtype": compute_dtype,
    }
    identity |= {"prompt": prompt} if prompt else {}
    identity |= {"lower_case": True} if lower_case else {}
    identity |= {"chunk": True} if chunk else {}
    identity |= {"kept": sorted(kept), "int8_version": INT8_VERSION} if compute_dtype == "int8" else {}
    identity |= {"task": task} if task else {}
    adapter = [(task_adapter(folder, task) if task else folder) / name for name in (ADAPTER, ADAPTER_WEIGHTS)]
    if adapter[0].is_file():
        identity["adapter"] = {path.name: _sha256(path) for path in adapter}
    identity |= {"part": "encoder"} if kind_of(config) is ENCODER_DECODER else {}
    code = {path.name: _sha256(path) for path in sorted(folder.glob("*.py"))} if trust_remote_code else {}
    identity |= {"code": code} if code else {}
    return identity if tuned is None else tuned.identity(identity)


def check_max_length(max_length: int) -> None:
    if max_length < 3:
        raise EmbedcacheError(
            f"max_length {max_length} leaves no room for text between the special tokens: use 3 or more"
        )


def resolve_dtype(dtype: str, device: str, folder: Path) -> str:
    """Resolve "auto": bfloat16 where the device computes in it and, on a CPU, the family allows it; else float32."""
    if dtype not in ("auto", *DTYPES):
        raise EmbedcacheError(f"unknown dtype '{dtype}': use auto, {', '.join(DTYPES)}")
    if is_static(folder):
        return "float32"
    if dtype == "int8" and device not in ("auto", "cpu"):
        raise EmbedcacheError(f"int8 is computed on CPUs, not on {device}: use --device cpu, or --dtype bfloat16")
    if dtype != "auto":
        return dtype
    device = resolve_device(device)
    if device == "cpu":
        family = FAMILIES.get(str(model_config(folder).get("model_type")))
        return "bfloat16" if family and family.bfloat16 and cpu_computes_bfloat16() else "float32"
    import torch

    # By compute capability: is_bf16_supported() is also true for slow emulation.
    return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"


def find_folder(source: str | Path, trust_remote_code: bool = False) -> tuple[Path, str]:
    """(folder with the encoder's files, source to record), see ``find_root``."""
    root, name = find_root(source, trust_remote_code)
    return transformer_folder(root), name


def read_modules(root: Path) -> list[dict[str, Any]]:
    """The modules in modules.json of a sentence-transformers folder, dicts with "type" and "path"; [] without one.

    Raises:
        EmbedcacheError: it is damaged, or a path leads out of the folder.
    """
    path = root / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        parts = [(str(one["type"]), PurePosixPath(one["path"])) for one in modules]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise EmbedcacheError(f"{path}: not a list of modules ({error}): copy the model again") from error
    if any(part.is_absolute() or ".." in part.parts or "\\" in str(part) for _, part in parts):
        raise EmbedcacheError(f"{path}: a path leads out of the folder: copy the model again")
    if parts and is_theirs(parts[0][0]) and not parts[0][0].endswith((".Transformer", f".{STATIC}")):
        raise EmbedcacheError(
            f"{root}: modules.json starts with {parts[0][0].rpartition('.')[2]}, not with a Transformer or "
            "StaticEmbedding: use an encoder such as BERT, RoBERTa, MPNet or MiniLM"
        )
    return [{**one, "type": kind, "path": "" if str(part) == "." else str(part)}
            for one, (kind, part) in zip(modules, parts, strict=True)]  # fmt: skip


def is_theirs(kind: str) -> bool:
    """Whether a module of modules.json is part of sentence-transformers, rather than the model's own code."""
    return kind.startswith("sentence_transformers.")


def transformer_folder(root: Path) -> Path:
    """The folder of configuration, weights and tokenizer: the folder itself, or the one that modules.json names."""
    modules = read_modules(root)
    return root / modules[0]["path"] if modules and is_theirs(modules[0]["type"]) else root


def find_root(source: str | Path, trust_remote_code: bool = False) -> tuple[Path, str]:
    """(folder, source to record) of a local folder, or of a hub name by way of the Hugging Face cache.

    Raises:
        EmbedcacheError: it is not found, or the encoder's files in it are incomplete.
    """
    folder, name = Path(source).expanduser(), str(source)
    if folder.is_dir():
        if (tuned := find_tuned(folder)) is not None:  # all other files are its base's
            return find_root(tuned.base, trust_remote_code)[0], str(folder.resolve())
        check_folder(transformer_folder(folder), str(folder))
        return folder.resolve(), str(folder.resolve())
    if folder.exists():
        raise EmbedcacheError(f"{source} is a file: name the folder that holds config.json, weights and tokenizer")
    if isinstance(source, Path) or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise EmbedcacheError(f"{source}: no such folder: name a model folder, or a Hugging Face name such as "
                              "bert-base-uncased")  # fmt: skip
    folder = _cached(name, trust_remote_code) or download(name, trust_remote_code, _inside)
    if _lacks_modules(folder):
        with suppress(EmbedcacheError):  # offline: the code that needs them names the missing file
            folder = download(name, trust_remote_code, _inside)
    check_folder(transformer_folder(folder), name)
    return folder, name


def _inside(root: Path) -> list[str]:
    """The subfolders of a model's modules."""
    return [one["path"] for one in read_modules(root) if one["path"]]


def _lacks_modules(root: Path) -> bool:
    """Whether settings of modules are missing. Modules without settings have no folder on the hub."""
    needed = [one["path"] for one in read_modules(root) if not one["type"].endswith(UNCONFIGURED)]
    return not all((root / path / "config.json").is_file() for path in needed)


def check_folder(folder: Path, name: str) -> None:
    """Raise EmbedcacheError unless configuration, safetensors weights and tokenizer exist (here, or in the base)."""
    if (folder / ADAPTER).is_file() and not (folder / ADAPTER_WEIGHTS).is_file():
        raise EmbedcacheError(f"{name}: its PEFT adapter has no {ADAPTER_WEIGHTS}: save it again with save_pretrained")
    if (base := base_folder(folder)) != folder:
        check_folder(base, str(base))
        return
    if not (folder / "config.json").is_file() and not is_static(folder):
        raise EmbedcacheError(f"{name}: no config.json: name the folder of a model saved with save_pretrained")
    if not weight_files(folder):
        if list(folder.glob("*.bin")) or list(folder.glob("*.pt")):
            raise EmbedcacheError(
                f"{name}: has only pickled PyTorch weights, which are not loaded because they can run code; if you "
                "trust them, convert once: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER), and copy the "
                "tokenizer files"
            )
        raise EmbedcacheError(f"{name}: no model.safetensors: save the model there with save_pretrained")
    for path in weight_files(folder):
        if not path.is_file():
            raise EmbedcacheError(f"{name}: {path.name}, which its index names, is missing: copy the model again")
    if not any(p.name not in ("tokenizer_config.json", "special_tokens_map.json") for p in tokenizer_files(folder)):
        raise EmbedcacheError(
            f"{name}: no tokenizer (tokenizer.json or a vocabulary): copy the model's tokenizer there"
        )


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that its index names; [] without either. For an adapter, its base's."""
    folder = base_folder(folder)
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    return [folder / Path(name).name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]


def tokenizer_files(folder: Path) -> list[Path]:
    """All files of a tokenizer; a static model has tokenizer.json only."""
    if is_static(folder):
        return [path for path in [folder / "tokenizer.json"] if path.is_file()]
    found = sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()})
    if (codes := folder / "bpe.codes").is_file() and folder / "tokenizer.json" not in found:
        found.append(codes)  # of a tokenizer without a fast version; where there is one, it is not read
    return found if found or (base := base_folder(folder)) == folder else tokenizer_files(base)


def base_folder(folder: Path) -> Path:
    """The folder of a PEFT adapter's base: the same one, or the one the adapter names. Without an adapter, ``folder``.

    Raises:
        EmbedcacheError: the base is not found, or is an adapter itself.
    """
    if not (folder / ADAPTER).is_file() or (folder / "config.json").is_file():
        return folder
    named = str(read_json(folder / ADAPTER).get("base_model_name_or_path"))
    beside = (folder / named).resolve()
    base = transformer_folder(find_root(str(beside) if beside.is_dir() else named)[0])
    if (base / ADAPTER).is_file():
        raise EmbedcacheError(
            f"{folder}: the base of its PEFT adapter, {named}, is an adapter itself: merge that one first"
        )
    return base


def model_config(folder: Path) -> dict[str, Any]:
    """A model's config.json; for a static model, where it says nothing useful, only a ``model_type``."""
    return {"model_type": STATIC_TYPE} if is_static(folder) else read_json(base_folder(folder) / "config.json")


def is_static(folder: Path) -> bool:
    """Whether the weights are a table of token vectors and nothing else, by the names in their header."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    if not weights.is_file() or (config.is_file() and read_json(config).get("model_type") != "model2vec"):
        return False
    names = tensor_names(weights)
    return bool(names & {"embedding.weight", "embeddings"}) and names <= STATIC_WEIGHTS


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EmbedcacheError(f"{path}: not JSON ({error}): copy the model again") from error
    if not isinstance(value, dict):
        raise EmbedcacheError(f"{path}: not a JSON object: copy the model again")
    return value


def _sha256(path: Path) -> str:
    """Hex digest of a file's content; for a JSON configuration, without the keys about its origin."""
    if path.name == ADAPTER:
        return _config_sha256(read_json(path), ADAPTER_ORIGIN)
    return _config_sha256(read_json(path)) if path.name == "tokenizer_config.json" else weights_sha256(path)


def _config_sha256(config: dict[str, Any], origin: frozenset[str] = ORIGIN_KEYS) -> str:
    """Hex digest of a configuration without the keys about its origin."""
    kept = {key: value for key, value in config.items() if key not in origin}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _cached(name: str, trust_remote_code: bool) -> Path | None:
    """The hub model's folder in the Hugging Face cache, if it is complete. Works offline."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        inner = transformer_folder(folder)
        check_folder(inner, name)
    except (OSError, ValueError, EmbedcacheError):
        return None
    # An earlier call may have downloaded it without its own code, which was not trusted then.
    lacks_code = "auto_map" in model_config(inner) and not any(folder.glob("*.py"))
    return None if trust_remote_code and lacks_code else folder
