"""Load the libraries of a wheel on a system for which no Python is at hand, train a head and encode with them.

    python release/libraries.py dist/embedcache-*-musllinux_1_2_*.whl dist/embedcache-*-win_amd64.whl

For Windows it needs Wine (Debian: wine, wine64), for musl apt-get, which fetches Debian's musl into a folder, and
qemu-user for another processor; and the extra ``release``. It shows that the libraries are whole and compute; the
Python code around them is not run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from emulate import ROOT, unpack
from wheels import PLATFORMS

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}


def musl(machine: str) -> list[str]:
    """The command before a program's name: musl's own loader, emulated where this machine is another."""
    folder = ROOT / "build" / f"musl-{machine}"
    unpack(folder, ["musl"], DEBIAN[machine])
    emulator = [] if platform.machine() == machine else [f"qemu-{machine}"]
    return [*emulator, str(folder / "root" / "lib" / f"ld-musl-{machine}.so.1")]


def check(wheel: Path) -> bool:
    """Whether the libraries of one wheel pass; what they say is printed."""
    name = wheel.stem.rpartition("-")[2]
    target = PLATFORMS[name].target
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith((".dll", ".so"))])
        program, libraries, env = Path(folder, "check.exe"), str(Path(folder, "embedcache")), dict(os.environ)
        # The wheels' own options: Zig has its C++ library compiled with them already.
        compiler = [sys.executable, "-m", "ziglang", "c++", "-target", target, "-std=c++17", "-O3", "-Wl,-s"]
        if name == "win_amd64":
            command = ["wine", str(program), "Z:" + libraries.replace("/", "\\")]
            env |= {"WINEPREFIX": str(Path(folder, "wine")), "WINEDEBUG": "-all"}
        else:
            command = [*musl(target.partition("-")[0]), str(program), libraries]
            compiler.append("-dynamic")  # a static program loads no libraries
        source = str(ROOT / "release" / "libraries_check.cpp")
        subprocess.run([*compiler, source, "-o", str(program)], check=True, stdin=subprocess.DEVNULL)
        print(f"{name}: ", end="", flush=True)
        return subprocess.run(command, env=env, check=False).returncode == 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} WHEEL...")
    passed = [check(Path(wheel)) for wheel in sys.argv[1:]]
    sys.exit(not all(passed))
