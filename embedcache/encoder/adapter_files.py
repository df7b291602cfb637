"""The files of PEFT adapters, and the adapters for tasks that some models have (such as Jina v3)."""

from __future__ import annotations

from pathlib import Path

from embedcache.errors import EmbedcacheError

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def tasks_of(folder: Path) -> list[str]:
    """The tasks for which a model's folder has an adapter, each in a subfolder of the task's name."""
    return sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER}"))


def task_adapter(folder: Path, task: str) -> Path:
    """The subfolder of a model with the adapter for a task.

    Raises:
        EmbedcacheError: there is none of that name.
    """
    if task in tasks_of(folder):
        return folder / task
    known = f"it has {', '.join(tasks_of(folder))}" if tasks_of(folder) else "it has none"
    raise EmbedcacheError(f"{folder} has no adapter for the task {task!r}; {known} (subfolders with {ADAPTER})")
