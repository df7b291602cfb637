"""Install the aarch64 wheel where no ARM machine is, and run doctor's self-test and tests with it.

    python release/emulate.py [--torch] dist/embedcache-*-manylinux_2_17_aarch64.whl [-- PYTEST ARGUMENTS]

Needs qemu-aarch64 (Debian: qemu-user) and apt-get. Python comes from Debian's arm64 packages, unpacked into a folder
and not installed; NumPy and the others are PyPI's aarch64 wheels. QEMU executes ARM's instructions one by one, so
results here are ARM's; orders of memory accesses that only real cores show do not occur, and times mean nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEBS = (
    "libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libdb5.3 "
    "libreadline8 libtinfo6 libncursesw6 libcrypt1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
).split()  # of Debian 12
TORCH = "torch==2.9.1 transformers==5.23.0 sympy mpmath networkx regex".split()  # later torches there want CUDA
GLIBC = (17, 26, 27, 28, 34)  # manylinux_2_N of the packages' wheels


def apt(folder: Path, architecture: str, *command: str, cwd: Path | None = None) -> None:
    """apt-get with lists of its own; what is installed on this machine is neither read nor changed."""
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Dir::State::Lists": str(lists),
        "Dir::State::status": "/dev/null",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
    }
    chosen = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", *chosen, "-qq", *command], cwd=cwd, check=True)


def unpack(folder: Path, packages: Sequence[str], architecture: str) -> None:
    """Debian's packages into ``folder``/root, not installed; once."""
    root, debs = folder / "root", folder / "debs"
    if root.exists():
        return
    debs.mkdir(parents=True, exist_ok=True)
    apt(folder, architecture, "update")
    apt(folder, architecture, "download", *packages, cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(deb), str(root)], check=True)


def prepare(folder: Path, wheel: str, torch: bool = False) -> None:
    """Fills ``folder``: root/ with Debian's Python for arm64, site/ with the wheel and all that its tests import."""
    site = folder / "site"
    unpack(folder, DEBS, "arm64")
    platforms = [part for n in GLIBC for part in ("--platform", f"manylinux_2_{n}_aarch64")]
    packages = [f"{wheel}[heads,search]", "pytest", "pytest-timeout", "hypothesis"]
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-compile", "--target", str(site)]
    kind = ["--python-version", "3.11", "--only-binary", ":all:"]
    subprocess.run([*command, *platforms, *kind, *constraint, *packages], check=True)
    if torch:
        subprocess.run([*command, *platforms, *kind, "--no-deps", *TORCH], check=True)


def copy_tests(folder: Path) -> None:
    """Tests of this tree, and no package of it: its libraries are for this machine."""
    for name in ("tests", "demo", "docs", "csrc", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("data", "out"))
    for file in ("pyproject.toml", "setup.py", "Makefile", *(path.name for path in ROOT.glob("*.md"))):
        shutil.copy(ROOT / file, folder)


def try_out(folder: Path, run: Callable[..., int], tests: Sequence[str]) -> int:
    """doctor with its self-test, and this tree's tests where some are named; run: Python with arguments. The status."""
    failed = run("-m", "embedcache", "doctor")
    if tests:
        copy_tests(folder)
        failed |= run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    return failed


def run(folder: Path, *command: str) -> int:
    """Runs ARM's Python with arguments; its status."""
    root = folder / "root"
    env = os.environ | {"PYTHONPATH": str(folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    python = ["qemu-aarch64", "-L", str(root), str(root / "usr/bin/python3.11")]
    return subprocess.run([*python, *command], env=env, cwd=folder, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", help="the aarch64 wheel")
    parser.add_argument("tests", nargs="*", help="arguments of pytest, after --")
    parser.add_argument("--torch", action="store_true", help="with torch and transformers, for tests that need them")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "aarch64", help="what is kept between runs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    prepare(folder, str(Path(arguments.wheel).resolve()), arguments.torch)
    sys.exit(try_out(folder, partial(run, folder), arguments.tests))


if __name__ == "__main__":
    main()
