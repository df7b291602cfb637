"""Models by their Hugging Face name: which files are downloaded, and clear errors where that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from embedcache.errors import EmbedcacheError


def download(name: str, trust_remote_code: bool, inside: Callable[[Path], list[str]]) -> Path:
    """Download the files of a hub model that are needed (safetensors, JSON, vocabularies) and return their folder.

    Args:
        name: of the model on the hub.
        trust_remote_code: whether to download the model's own Python code, too.
        inside: returns the subfolders that are needed, from the folder that holds modules.json.

    Raises:
        EmbedcacheError: the model is gated or not found, or the hub cannot be reached.
    """
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "bpe.codes"] + ["*.py"] * trust_remote_code
    quiet = are_progress_bars_disabled() or not sys.stderr.isatty()
    restore = enable_progress_bars if not are_progress_bars_disabled() else disable_progress_bars
    try:
        if quiet:
            disable_progress_bars()
        folder = Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"], etag_timeout=5))
        snapshot_download(name, allow_patterns=["*/adapter_config.json", "*/adapter_model.safetensors"])  # of tasks
        if folders := inside(folder):
            snapshot_download(name, allow_patterns=[f"{path}/{one}" for path in folders for one in patterns])
        return folder
    except EmbedcacheError:
        raise
    except errors.GatedRepoError as error:
        raise EmbedcacheError(f"model '{name}' is gated: accept its terms on the hub, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise EmbedcacheError(
            f"no model '{name}' on the Hugging Face hub (or it is private): check the name, or name a local folder"
        ) from error
    except Exception as error:  # the HTTP client's own errors too, which differ by version of the hub's library
        reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix("Got: ")[:120]
        raise EmbedcacheError(
            f"model '{name}' is not in the local cache and cannot be downloaded ({reason}): when offline, pass the "
            "path of a folder that holds its config.json, model.safetensors and tokenizer files"
        ) from error
    finally:
        restore()
