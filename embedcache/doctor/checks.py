"""What is installed and what the hardware is. Nothing here loads torch, unless there is a GPU for it to see."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from embedcache import __version__
from embedcache.common.machine import cpu_quota, memory_free, memory_limit
from embedcache.encoder.hardware import cpu_flags
from embedcache.errors import EmbedcacheError

OK, MISSING, FAILED = "ok", "missing", "failed"
PACKAGES = ("numpy", "h5py", "tokenizers")
EXTRAS = {
    "tables": ("pyarrow",),
    "heads": ("scipy", "scikit-learn", "matplotlib"),
    "torch": ("torch", "transformers"),
    "serve": ("fastapi", "uvicorn"),
    "export": ("onnx", "onnxruntime"),
    "ray": ("ray",),
    "train": ("accelerate",),
}
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimddp", "bf16", "i8mm")
GIGABYTE = 1e9


@dataclass(frozen=True)
class Check:
    """One line: ``status`` is ok, missing (something can be done without it) or failed; ``advice``: what to do."""

    name: str
    status: str
    found: str
    advice: str = ""


def machine_checks() -> list[Check]:
    """Everything but the self-test. Raises nothing: what cannot be found out is reported as unknown."""
    checks: list[Check] = []
    for look in (_python, _packages, _hdf5, _faiss, _extras, _engines, _encoder, _processor, _memory, _gpu, _folders):
        try:
            checks += look()
        except Exception as error:
            name = look.__name__.strip("_")
            checks.append(Check(name, FAILED, f"{type(error).__name__}: {error}", "reinstall embedcache"))
    return checks


def _python() -> Iterator[Check]:
    yield Check("python", OK, f"{platform.python_version()}, {sys.executable}")
    yield Check("embedcache", OK, f"{__version__}, {Path(__file__).resolve().parents[1]}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    versions = {name: _version(name) for name in PACKAGES}
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Check("packages", OK, there)
    for name, version in versions.items():
        if version is None:
            yield Check(name, FAILED, "not installed", f"pip install {name}")


def _hdf5() -> Iterator[Check]:
    import h5py

    yield Check("HDF5", OK, f"{h5py.version.hdf5_version}, by h5py {h5py.__version__}")


def _faiss() -> Iterator[Check]:
    try:
        import faiss
    except ImportError as error:
        advice = "pip install 'embedcache[cpu]', or 'embedcache[gpu]' (not both): large indexes need it"
        yield Check("FAISS", MISSING, str(error), advice)
        return
    level = faiss.SIMDConfig.get_level_name() if hasattr(faiss, "SIMDConfig") else _compiled(faiss)
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    kind = "GPU" if hasattr(faiss, "StandardGpuResources") else "CPU"
    on = f", {gpus} GPUs" if kind == "GPU" else ""
    yield Check("FAISS", OK, f"{faiss.__version__} for {kind}{on}, SIMD level {level}")


def _compiled(faiss: Any) -> str:
    """The SIMD level of a FAISS before 1.14, which loads the build for this processor; its options name the level."""
    words = faiss.get_compile_options().split()
    return next((level for level in ("AVX512_SPR", "AVX512", "AVX2", "NEON") if level in words), "none")


def _extras() -> Iterator[Check]:
    for extra, packages in EXTRAS.items():
        absent = [name for name in packages if _version(name) is None]
        if absent:
            yield Check(extra, MISSING, f"without {', '.join(absent)}", f"pip install 'embedcache[{extra}]'")
        else:
            yield Check(extra, OK, ", ".join(f"{name} {_version(name)}" for name in packages))


def _engines() -> Iterator[Check]:
    from embedcache.heads import engine_native

    try:
        yield Check("head engine", OK, engine_native.NativeEngine("cpu", 0).name)
    except EmbedcacheError as error:
        yield Check("head engine", MISSING, str(error), "install g++ and reinstall embedcache; until then torch trains")
    try:
        yield Check("CUDA engine", OK, engine_native.NativeEngine("cuda", 0).name)
    except EmbedcacheError as error:
        advice = "reinstall embedcache with nvcc on the path" if shutil.which("nvidia-smi") else "no GPU, none needed"
        yield Check("CUDA engine", MISSING, str(error), advice)


def _encoder() -> Iterator[Check]:
    from embedcache.encoder.runner_native import backend
    from embedcache.encoder.tokenizer_native import is_built

    computes = {dtype: backend(dtype) for dtype in ("float32", "bfloat16", "int8")}
    there = ", ".join(f"{dtype} by {name}" for dtype, name in computes.items() if name)
    if there:
        yield Check("encoder engine", OK, there)
    else:
        yield Check("encoder engine", MISSING, "none for this processor", "torch encodes, more slowly")
    if is_built():
        yield Check("tokenizer", OK, "native, for WordPiece and byte-level BPE")
    else:
        yield Check("tokenizer", MISSING, "the native one is not built", "the tokenizers library works, more slowly")


def _processor() -> Iterator[Check]:
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        name = found[1] if found else name
    except OSError:
        pass
    flags = [flag for flag in FLAGS if flag in cpu_flags()]
    yield Check("processor", OK, f"{name}; {', '.join(flags) or 'neither AVX2 nor dot products'}")
    cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota = cpu_quota()
    limit = "" if quota is None else f", limited to the time of {quota:g} by its cgroup"
    advice = ""
    if quota is not None and quota < allowed:
        advice = f"--threads {max(1, int(quota))} where work is slower than it should be"
    yield Check("threads", OK, f"{allowed} of {cores} cores may be used{limit}", advice)


def _memory() -> Iterator[Check]:
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        yield Check("memory", OK, "unknown")
        return
    sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    limit = memory_limit()
    within = "" if limit is None or limit >= sizes["MemTotal"] else f", limited to {limit / GIGABYTE:.1f} by its cgroup"
    total, free = sizes["MemTotal"] / GIGABYTE, memory_free() / GIGABYTE
    yield Check("memory", OK, f"{free:.1f} of {total:.1f} GB available{within}")


def _gpu() -> Iterator[Check]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Check("GPU", MISSING, "no NVIDIA driver", "none is needed")
        return
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Check("GPU", MISSING, f"nvidia-smi does not answer ({error})", "look at the driver")
        return
    if done.returncode or not done.stdout.strip():
        words = " ".join((done.stderr or done.stdout).split())[:120]
        yield Check("GPU", MISSING, f"nvidia-smi: {words}", "look at the driver")
        return
    for line in done.stdout.strip().splitlines():
        name, driver, memory = (part.strip() for part in line.split(",", 2))
        yield Check("GPU", OK, f"{name}, {memory}, driver {driver}")
    import torch

    if torch.cuda.is_available():
        yield Check("torch on GPU", OK, f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} seen")
    else:
        yield Check("torch on GPU", MISSING, f"torch {torch.__version__} sees no GPU", "install torch's CUDA build")


def _folders() -> Iterator[Check]:
    yield Check("encoders", OK, _encoders(hub_folder()))
    for name, folder in (("disk", Path.cwd()), ("disk for temporary files", Path(tempfile.gettempdir()))):
        yield Check(name, OK, f"{shutil.disk_usage(folder).free / GIGABYTE:,.1f} GB free at {folder}")


def hub_folder() -> Path:
    """Where encoders from the hub are kept: huggingface_hub's own rule, without loading it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _encoders(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("models--*")) if folder.is_dir() else []
    shown = ", ".join(name.removeprefix("models--").replace("--", "/") for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{shown or 'none'}{more} in {folder}"
