"""The files of PEFT adapters, and the adapters that a model has for tasks (as Jina v3 has)."""

from __future__ import annotations

from pathlib import Path

from embedcache.errors import EmbedcacheError

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def tasks_of(folder: Path) -> list[str]:
    """The tasks for which a model's folder holds an adapter, in a subfolder of that name each."""
    return sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER}"))


def task_adapter(folder: Path, task: str) -> Path:
    """The subfolder of a model with the adapter for a task.

    Raises:
        EmbedcacheError: there is none of that name.
    """
    if task in tasks_of(folder):
        return folder / task
    known = f"it has {', '.join(tasks_of(folder))}" if tasks_of(folder) else "it has none"
    raise EmbedcacheError(f"{folder} has no adapter for a task {task!r}; {known} (subfolders with {ADAPTER})")
