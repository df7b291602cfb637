"""The finished folder: model and tokenizer, and what the base says of its sentence vectors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from embedcache.common.whole_folder import whole_folder
from embedcache.encoder.folder import read_modules, transformer_folder
from embedcache.encoder.load_with_transformers import quiet
from embedcache.encoder.prescription import CONFIG, SETTINGS


def write_model(output: Path, model: Any, tokenizer: Any, root: Path | None) -> None:
    """The folder, whole or not at all.

    Args:
        output: Its name.
        model: Of transformers.
        tokenizer: Of it.
        root: Of the base; where it has a modules.json, that and the modules behind the transformer are kept.
    """
    with whole_folder(output, _keep) as part:
        inside = part if root is None else part / transformer_folder(root).relative_to(root)
        with quiet():
            model.save_pretrained(inside)
            tokenizer.save_pretrained(inside)
        for path in inside.iterdir():  # safetensors gives its files to their owner alone
            path.chmod((inside / "config.json").stat().st_mode)
        for path in [] if root is None else _beside(root):
            target = part / path.relative_to(root) if root else part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _beside(root: Path) -> list[Path]:
    """The files of a folder of sentence-transformers that are not the transformer's weights or tokenizer."""
    modules = read_modules(root)
    if not modules:
        return []
    folder = transformer_folder(root)
    named = [root / "modules.json", root / CONFIG, *(folder / name for name in SETTINGS)]
    inside = (path for one in modules[1:] if one["path"] for path in sorted((root / one["path"]).rglob("*")))
    return [path for path in [*named, *inside] if path.is_file()]


def _keep(old: Path, new: Path) -> None:
    """Nothing is replaced, see ``check_place``; what came there meanwhile stays beside it."""
