"""Build the source distribution, and from it a wheel for every platform, on one machine.

    python release/wheels.py [-o dist] [--cuda] [PLATFORM ...]

Zig (from PyPI) is the C++ compiler: it brings the headers and libraries of every system, and links libc++ in. A wheel
serves every Python 3, since its libraries are loaded by ctypes. Each is opened again: which libraries it asks the
system for, and which version of glibc. What its platform may lack fails here. release/README.md says what has run
where. Needs the extra ``release``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Platform:
    """What a wheel of this platform is compiled for, and what its libraries may ask the system for.

    Attributes:
        target: Zig's name of the machine, the system and the oldest version of it.
        libraries: lower-case beginnings of the names of libraries that every such system has.
    """

    target: str
    libraries: tuple[str, ...]


GLIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-")
MUSL = ("libc.so",)
MACOS = ("/usr/lib/libsystem.b.dylib",)
WINDOWS = ("kernel32.dll", "ntdll.dll", "advapi32.dll", "api-ms-win-crt-")

PLATFORMS = {
    "manylinux_2_17_x86_64": Platform("x86_64-linux-gnu.2.17", GLIBC),
    "manylinux_2_17_aarch64": Platform("aarch64-linux-gnu.2.17", GLIBC),
    "musllinux_1_2_x86_64": Platform("x86_64-linux-musl", MUSL),
    "musllinux_1_2_aarch64": Platform("aarch64-linux-musl", MUSL),
    "macosx_13_0_arm64": Platform("aarch64-macos.13.0", MACOS),
    "macosx_13_0_x86_64": Platform("x86_64-macos.13.0", MACOS),
    "win_amd64": Platform("x86_64-windows-gnu", WINDOWS),
}
# Without symbols that only a debugger reads; on Linux a linker lets functions be missing unless it is told not to.
LINK_FLAGS = {"linux": "-Wl,-s -Wl,-z,defs", "macos": "", "windows": "-Wl,-s"}
CUDA = "manylinux_2_34_x86_64"  # nvcc's host compiler is the machine's own: Debian 12's
CUDA_LIBRARIES = (*GLIBC, "libstdc++.so.6", "libgcc_s.so.1")


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> None:
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nError: {' '.join(command)} failed in {cwd}")


def build(kind: str, source: Path, output: Path, env: dict[str, str], *more: str) -> Path:
    """The one new file that ``python -m build --kind`` puts into ``output``."""
    with tempfile.TemporaryDirectory(dir=output) as made:
        run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", made, *more, cwd=source, env=env)
        (built,) = Path(made).iterdir()
        return built.replace(output / built.name)


def libraries(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each native library inside."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith((".so", ".dll", ".dylib")):
                yield name, archive.read(name)


def asked_for(content: bytes) -> list[str]:
    """The libraries that one library asks the system for."""
    import lief

    lief.logging.disable()
    parsed = lief.parse(content)
    if isinstance(parsed, lief.MachO.Binary):
        return [library.name for library in parsed.libraries if library.command != lief.MachO.LoadCommand.TYPE.ID_DYLIB]
    if isinstance(parsed, lief.PE.Binary):
        return [library.name for library in parsed.imports]
    return [str(name) for name in parsed.libraries]


def check(wheel: Path, name: str) -> int:
    """The number of libraries in a wheel; ends the program where one of them asks for what its platform may lack."""
    found = list(libraries(wheel))
    if not found:
        sys.exit(f"Error: {wheel.name} has no native library")
    for library, content in found:
        for wanted in asked_for(content):
            if not wanted.lower().startswith(CUDA_LIBRARIES if name == CUDA else PLATFORMS[name].libraries):
                sys.exit(f"Error: {library} of {wheel.name} asks for {wanted}, which not every {name} has")
    if name.startswith("manylinux"):  # versions of symbols: the tool that knows the rules
        told = subprocess.run(
            [sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True, check=True
        ).stdout
        if f'"{name}"' not in " ".join(told.split()):
            sys.exit(f"{told}\nError: {wheel.name} is not what its name says")
    return len(found)


@contextmanager
def unpacked(sdist: Path) -> Iterator[Path]:
    """A tree of its own: no object file of another platform."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = Path(folder).iterdir()
        yield source


def build_wheel(name: str, source: Path, output: Path) -> None:
    """Builds and checks the wheel of one platform, from an unpacked source distribution."""
    begin, target = time.perf_counter(), PLATFORMS[name].target
    env = os.environ | {
        "EMBEDCACHE_CUDA": "0",
        "EMBEDCACHE_TARGET": target,
        "EMBEDCACHE_CXXFLAGS": LINK_FLAGS[target.split("-")[1].split(".")[0]],
        "CXX": f"{sys.executable} -m ziglang c++ -target {target}",
    }
    wheel = build("wheel", source, output, env, f"--config-setting=--build-option=--plat-name={name}")
    count = check(wheel, name)
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {size:.1f} MB, {count} libraries, {time.perf_counter() - begin:.0f} s", flush=True)


def build_cuda(source: Path, output: Path) -> None:
    """Builds and checks the wheel embedcache-cuda, by nvcc and its own host compiler."""
    begin, project = time.perf_counter(), source / "release" / "cuda"
    shutil.copytree(ROOT / "release" / "cuda", project, ignore=shutil.ignore_patterns("*.so", "build", "*.egg-info"))
    env = os.environ | {"EMBEDCACHE_CPU": "0"}
    run(sys.executable, "setup.py", "build_ext", "--build-lib", "built", cwd=source, env=env)
    library = source / "built" / "embedcache" / "heads" / "_heads_cuda.so"
    if not library.exists():
        sys.exit("Error: nvcc made no library: is it on the path?")
    shutil.copy(library, project / "embedcache_cuda")
    wheel = build("wheel", project, output, env, f"--config-setting=--build-option=--plat-name={CUDA}")
    check(wheel, CUDA)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - begin:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=f"default: all of {', '.join(PLATFORMS)}")
    parser.add_argument("--cuda", action="store_true", help="also embedcache-cuda, for Linux on x86-64")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.platforms) - set(PLATFORMS))
    if unknown:
        parser.error(f"unknown platform {unknown[0]}; choose from {', '.join(PLATFORMS)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    sdist = build("sdist", ROOT, arguments.output, dict(os.environ))
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB", flush=True)
    for name in arguments.platforms or PLATFORMS:
        with unpacked(sdist) as source:
            build_wheel(name, source, arguments.output)
    if arguments.cuda:
        with unpacked(sdist) as source:
            build_cuda(source, arguments.output)


if __name__ == "__main__":
    main()
