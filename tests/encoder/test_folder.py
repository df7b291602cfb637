"""Identity is content: what changes a vector changes it, nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedcache.encoder.folder import identify, resolve_dtype
from embedcache.encoder.hardware import cpu_computes_bfloat16, cpu_flags
from embedcache.errors import EmbedcacheError


def identity(folder: Path, **options: object) -> dict:
    return identify(folder, **{"max_length": 64, "dtype": "float32", "device": "cpu", **options})[0]  # type: ignore[arg-type]


def test_a_copy_is_the_same_encoder(tiny_bert: Path, bert_copy: Path) -> None:
    os.utime(bert_copy / "model.safetensors", (0, 0))
    (bert_copy / "README.md").write_text("other")
    config = json.loads((bert_copy / "config.json").read_text())
    config |= {"_name_or_path": "/somewhere", "transformers_version": "4.0", "torch_dtype": "float32"}
    (bert_copy / "config.json").write_text(json.dumps(config, indent=9))
    assert identity(bert_copy) == identity(tiny_bert)
    assert json.loads(json.dumps(identity(bert_copy))) == identity(bert_copy)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_one_changed_byte_is_another_encoder(tiny_bert: Path, bert_copy: Path, name: str) -> None:
    identity(bert_copy)  # a hash that is remembered must not outlive the change
    data = bytearray((bert_copy / name).read_bytes())
    data[-5] ^= 1
    (bert_copy / name).write_bytes(data)
    assert identity(bert_copy) != identity(tiny_bert)


def test_settings_that_change_a_vector(tiny_bert: Path, bert_copy: Path) -> None:
    base = identity(tiny_bert)
    assert identity(tiny_bert, max_length=65) != base
    assert identity(tiny_bert, dtype="bfloat16") != base
    config = json.loads((bert_copy / "config.json").read_text())
    (bert_copy / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    assert identity(bert_copy) != base
    shutil.copy(tiny_bert / "config.json", bert_copy)
    (bert_copy / "vocab.txt").write_text("more")
    assert identity(bert_copy) != base


def test_own_code_counts_where_it_is_trusted(tiny_bert: Path, bert_copy: Path) -> None:
    (bert_copy / "modeling_own.py").write_text("pass")
    assert identity(bert_copy) == identity(tiny_bert)
    assert "modeling_own.py" in identity(bert_copy, trust_remote_code=True)["code"]


def test_identify_imports_no_torch(tiny_bert: Path) -> None:
    code = (
        "import sys; from embedcache.encoder import identify; "
        f"identify({str(tiny_bert)!r}, max_length=64, device='cpu'); "
        "assert not {'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys(), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_hub_name_without_a_network(tmp_path: Path) -> None:
    code = (
        "from embedcache.encoder import identify\n"
        "from embedcache.errors import EmbedcacheError\n"
        "try: identify('nobody/none-such', max_length=64, device='cpu')\n"
        "except EmbedcacheError as error: print(error)\n"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("model 'nobody/none-such' is not in the local cache and cannot be downloaded")
    assert done.stdout.count("\n") == 1
    assert "pass the path of a folder" in done.stdout
    assert done.stderr == ""


def test_a_hub_name_in_the_local_cache(tmp_path: Path, tiny_bert: Path) -> None:
    """Laid out as the hub's library lays it out; then found without a network, its name kept as the source."""
    model = tmp_path / "hub" / "models--some--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    shutil.copytree(tiny_bert, model / "snapshots" / ("a" * 40))
    code = (
        "from embedcache.encoder import identify; "
        "print(identify('some/tiny', max_length=64, dtype='float32', device='cpu'))"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str((identity(tiny_bert), "some/tiny"))


@pytest.mark.parametrize("source", ["./none", "/none/such", "~/none", "a/b/c", "..", "", Path("none")])
def test_paths_that_are_no_folder_never_reach_the_network(source: str | Path, tmp_path: Path) -> None:
    if source == "..":
        source = str(tmp_path / ".." / "none")
    with pytest.raises(EmbedcacheError, match=r"no such folder|no config\.json"):
        identify(source, max_length=64, device="cpu")


def test_a_file_is_no_folder(tiny_bert: Path) -> None:
    with pytest.raises(EmbedcacheError, match="is a file: name the folder"):
        identify(tiny_bert / "config.json", max_length=64, device="cpu")


@pytest.mark.parametrize(
    ("flags", "bfloat16"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx512f bf16x", False),
        ("Features\t: fp asimd asimddp svebf16 i8mm bf16", True),
        ("Features\t: fp asimd asimddp svebf16", False),
        (None, False),
    ],
)
def test_auto_dtype_of_a_cpu(
    tiny_bert: Path, bert_copy: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, bfloat16: bool
) -> None:
    """What the processor can, for the families whose vectors stay close; asked for, it is always had."""

    def read_text(path: Path, *args: Any, **options: Any) -> str:
        if str(path) != "/proc/cpuinfo":
            return text_of(path, *args, **options)
        if flags is None:
            raise FileNotFoundError
        return f"processor\t: 0\n{flags}\nvmx flags\t: avx512_bf16x\n"

    text_of = Path.read_text
    monkeypatch.setattr(Path, "read_text", read_text)
    cpu_flags.cache_clear()
    try:
        assert cpu_computes_bfloat16() == bfloat16
        assert identity(tiny_bert, dtype="auto")["compute_dtype"] == ("bfloat16" if bfloat16 else "float32")
        assert identity(tiny_bert, dtype="bfloat16")["compute_dtype"] == "bfloat16"
        config = json.loads((bert_copy / "config.json").read_text())
        (bert_copy / "config.json").write_text(json.dumps({**config, "model_type": "modernbert"}))
        assert identity(bert_copy, dtype="auto")["compute_dtype"] == "float32"
    finally:
        cpu_flags.cache_clear()


def test_dtypes(tiny_bert: Path) -> None:
    with pytest.raises(EmbedcacheError, match="unknown dtype 'int4'"):
        resolve_dtype("int4", "cpu", tiny_bert)
