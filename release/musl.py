"""Install a wheel for musl in a Python for musl, built here, and run doctor's self-test and tests with it.

    python release/musl.py dist/embedcache-*-musllinux_1_2_x86_64.whl [-- PYTEST ARGUMENTS]
    python release/musl.py dist/embedcache-*-musllinux_1_2_aarch64.whl

No package index has a Python for musl, so it is compiled from Debian's source, of the version that runs this script,
with Debian's musl. Needs Debian 13's musl or newer (older ones lack the packed relocations of NumPy's wheel), deb-src
lines, gcc, and for aarch64 gcc-aarch64-linux-gnu and qemu-user. Nothing is installed on this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from emulate import ROOT, apt, try_out, unpack

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
PACKAGES = (
    "aiohttp click defusedxml faiss-cpu fsspec h5py hypothesis jinja2 msgspec numpy openpyxl pandas polars pyarrow "
    "pyparsing pytest pytest-timeout pyyaml rich safetensors scipy tokenizers"
).split()  # scikit-learn has no wheels for musl


class Musl:
    """A folder with musl and a Python for it: root/ musl itself, python/ and site/, what it imports."""

    def __init__(self, folder: Path, arch: str) -> None:
        self.folder, self.arch, self.root, self.prefix = folder, arch, folder / "root", folder / "python"
        self.triplet = f"{arch}-linux-musl"

    def prepare(self, wheel: str) -> None:
        """Fills the folder; musl and Python once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.prefix.exists():
            unpack(self.folder, ["musl", "musl-dev"], DEBIAN[self.arch])
            self._make_compiler()
            self._build("libffi", "--disable-shared", "--disable-docs", "--disable-exec-static-tramp")
            self._build("zlib", host=False)
            self._build(f"python{VERSION}", *self._python_options())
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-compile"]
        command += ["--target", str(self.folder / "site"), "--only-binary", ":all:", "--python-version", VERSION]
        command += ["--platform", f"musllinux_1_2_{self.arch}", "--platform", f"musllinux_1_1_{self.arch}"]
        subprocess.run([*command, *PACKAGES], check=True)
        subprocess.run([*command, "--no-deps", wheel], check=True)
        # h5py's wheel takes zlib from the system; here it lies where its own libraries are.
        shutil.copy(self.prefix / "lib" / "libz.so.1", self.folder / "site" / "h5py.libs")

    def _make_compiler(self) -> None:
        """``folder``/cc: gcc with musl's specs, whose paths are those of this folder."""
        specs = self.folder / "musl.specs"
        text = (self.root / "usr/lib" / self.triplet / "musl-gcc.specs").read_text()
        text = text.replace("/usr/", f"{self.root}/usr/").replace(" /lib/ld-musl", f" {self.root}/usr/lib/ld-musl")
        specs.write_text(text)
        compiler = self.folder / "cc"
        compiler.write_text(  # Python's configure asks for the name of the system, which gcc takes for glibc's
            f'#!/bin/sh\ncase "$*" in *-print-multiarch) echo {self.triplet}; exit;; esac\n'
            f'exec {self.arch}-linux-gnu-gcc "$@" -specs {specs}\n'
        )
        compiler.chmod(0o755)

    def _python_options(self) -> list[str]:
        readelf = shutil.which("readelf")
        options = ["--without-ensurepip", "--disable-test-modules", "--with-system-ffi", "--disable-ipv6"]
        options += [f"--build={os.uname().machine}-linux-musl", f"--with-build-python={sys.executable}"]
        return [*options, "ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", f"READELF={readelf}"]

    def _build(self, name: str, *options: str, host: bool = True) -> None:
        """Debian's source package, without Debian's changes, into ``prefix``."""
        source = self.folder / name
        source.mkdir(exist_ok=True)
        apt(self.folder, DEBIAN[self.arch], "source", "--download-only", "--tar-only", name, cwd=source)
        (packed,) = source.glob("*.orig.tar.*[z2]")
        subprocess.run(["tar", "xf", str(packed), "--strip-components=1", "-C", str(source)], check=True)
        include, lib = self.prefix / "include", self.prefix / "lib"
        env = os.environ | {
            "CC": str(self.folder / "cc"),
            "CFLAGS": f"-O2 -fPIC -I{include}",
            "CPPFLAGS": f"-I{include}",
            "LDFLAGS": f"-L{lib} -Wl,-rpath,{lib}",
            "PKG_CONFIG_LIBDIR": str(lib / "pkgconfig"),
            "LIBFFI_INCLUDEDIR": str(include),
        }
        more = [f"--host={self.triplet}"] if host else []
        jobs = f"-j{os.cpu_count()}"
        configure = ["./configure", f"--prefix={self.prefix}", *more, *options]
        with (self.folder / f"{name}.log").open("w") as log:
            for step in (configure, ["make", jobs], ["make", "install"]):
                print(f"{name}: {' '.join(step[:2])}; {log.name}", flush=True)
                subprocess.run(step, cwd=source, env=env, stdout=log, stderr=log, check=True)

    def run(self, *command: str) -> int:
        """Runs the Python with arguments; its status."""
        env = os.environ | {"PYTHONPATH": str(self.folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
        before = [] if self.arch == os.uname().machine else [f"qemu-{self.arch}"]
        python = str(self.prefix / "bin" / f"python{VERSION}")
        return subprocess.run([*before, python, *command], env=env, cwd=self.folder, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="a musllinux wheel")
    parser.add_argument("tests", nargs="*", help="arguments of pytest, after --")
    parser.add_argument("--folder", type=Path, help="what is kept between runs  [build/musl-ARCH]")
    arguments = parser.parse_args()
    arch = next(arch for arch in DEBIAN if arguments.wheel.stem.endswith(arch))
    musl = Musl((arguments.folder or ROOT / "build" / f"musl-{arch}").resolve(), arch)
    musl.prepare(str(arguments.wheel.resolve()))
    sys.exit(try_out(musl.folder, musl.run, arguments.tests))


if __name__ == "__main__":
    main()
