"""Builds the native engines: plain shared libraries for ctypes, without Python.h, torch or a GPU.

embedcache/heads/_heads_cpu.so, embedcache/encoder/_encoder_cpu.so, embedcache/encoder/_tokenizer_cpu.so,
embedcache/finetune/_block_cpu.so, embedcache/common/_guard_cpu.so: always, with the C++ compiler (CXX, else c++, g++
or clang++); EMBEDCACHE_CPU=0 does without. A cross compiler says for which machine it compiles by EMBEDCACHE_TARGET,
aarch64-linux-gnu for example (release/wheels.py sets both). embedcache/heads/_heads_cuda.so: where nvcc is on the path
or under CUDA_HOME; EMBEDCACHE_CUDA=0 does without; if it cannot be built, the installation reports why and continues.
Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# psabi: vectors are passed inside one library only; braces: Clang wants them around each entry of a generated table
WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-missing-braces"]
CPU_FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ARM = "-mcpu=generic+dotprod+bf16+i8mm"
ISA_FLAGS = {  # the same source, once for each
    "avx2": AVX2,
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512bf16"],
    "avx512bf16vnni": [*AVX512, "-mavx512bf16", "-mavx512vnni"],
    "neondot": ["-mcpu=generic+dotprod"],
    "neonbf16": ["-mcpu=generic+bf16"],
    "neoni8mm": [ARM],
}
# Compilers of some years ago know none of these.
OPTIONAL = {"-mavx512bf16": "EC_AVX512BF16", "-mavxvnni": "EC_AVXVNNI", ARM: "EC_ARM"}
STATIC = ["-static-libstdc++", "-static-libgcc"]
CUDA_FLAGS = ["-std=c++17", "-O3", "-cudart", "static", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
CUDA_ARCHITECTURES = ["80", "90a"]  # machine code; PTX of the first serves every other GPU


def run(command: list[str]) -> None:
    """Raises CompileError with the compiler's own words."""
    print(" ".join(command), file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error}") from None
    print(done.stderr, end="", file=sys.stderr, flush=True)
    if done.returncode:
        raise CompileError(f"{command[0]} failed:\n{done.stderr[-2000:]}")


def target() -> str:
    """The machine and the system that the libraries are for: x86_64-linux-gnu, aarch64-macos, ..."""
    return (os.environ.get("EMBEDCACHE_TARGET") or f"{platform.machine()}-{sys.platform}").lower()


def is_x86() -> bool:
    return target().startswith(("x86_64", "amd64"))


def is_arm() -> bool:
    return target().startswith(("aarch64", "arm64"))


def fits(isa: str) -> bool:
    """Whether the target's processors may have this instruction set; "" and plain, what every one has, are none."""
    return isa not in ISA_FLAGS or (is_arm() if isa.startswith("neon") else is_x86())


def is_windows() -> bool:
    return "-win" in target()


def find_compiler() -> list[str]:
    if os.environ.get("CXX"):
        return os.environ["CXX"].split()
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise CompileError("no C++ compiler found: install g++ or clang++, set CXX, or set EMBEDCACHE_CPU=0 to do without")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return shutil.which("nvcc", path=str(Path(home, "bin"))) if home else shutil.which("nvcc")


def knows_flag(compiler: list[str], flag: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [*compiler, flag, "-x", "c++", "-c", os.devnull, "-o", str(Path(folder, "empty.o"))]
        return subprocess.run(command, capture_output=True).returncode == 0


def isa(source: str) -> str:
    """The instruction set that a file is for: that of head_avx2.cpp is avx2."""
    return Path(source).stem.rpartition("_")[2]


def needs(isa: str, flag: str) -> bool:
    return isa.startswith("neon") if flag == ARM else flag in ISA_FLAGS.get(isa, [])


def build_cpu(sources: list[str], objects: Path, target: Path) -> None:
    compiler = find_compiler()
    extra = os.environ.get("EMBEDCACHE_CXXFLAGS", "").split()
    sources = [source for source in sources if fits(isa(source))]
    define = ["-DEC_X86"] if is_x86() else []
    for flag, name in OPTIONAL.items():
        if (is_arm() if flag == ARM else is_x86()) and knows_flag(compiler, flag):
            define.append(f"-D{name}")
        else:  # it is then computed with the other instructions
            sources = [source for source in sources if not needs(isa(source), flag)]

    def compile_one(source: str) -> str:
        made = objects / (Path(source).stem + ".o")
        flags = [*CPU_FLAGS, *WARNINGS, *define, *ISA_FLAGS.get(isa(source), []), *extra]
        run([*compiler, *flags, "-c", source, "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compile_one, sources))
    linked = objects / target.name  # and what a linker leaves beside it, as Windows' do, comes into no package
    link = [*compiler, "-shared", "-pthread", *extra, *made, "-o", str(linked)]
    try:  # another package may bring an older C++ library into the process: bring our own where that is possible
        run([*link, *STATIC])
    except CompileError:
        run(link)
    shutil.move(linked, target)


def build_cuda(sources: list[str], target: Path) -> None:
    nvcc = find_nvcc()
    if nvcc is None:
        raise CompileError("nvcc is neither on the path nor under CUDA_HOME")
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout.split()
    chosen = [arch for arch in CUDA_ARCHITECTURES if f"sm_{arch.rstrip('a')}" in known]  # sm_90a is listed as sm_90
    if not chosen:
        raise CompileError(f"{nvcc} knows none of sm_{', sm_'.join(CUDA_ARCHITECTURES)}")
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in chosen]
    codes.append(f"-gencode=arch=compute_{chosen[0]},code=compute_{chosen[0]}")
    extra = os.environ.get("EMBEDCACHE_NVCCFLAGS", "").split()
    run([nvcc, *CUDA_FLAGS, *codes, "-t", "0", *extra, "--shared", *sources, "-o", str(target)])


class BuildLibraries(build_ext):
    """Compiles the extensions as plain shared libraries, without the interpreter's tag in their names."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + (".dll" if is_windows() else ".so")

    def build_extension(self, ext: Extension) -> None:
        target, objects = Path(self.get_ext_fullpath(ext.name)).absolute(), Path(self.build_temp, ext.name)
        newest = max(Path(file).stat().st_mtime for file in [*ext.sources, *ext.depends, __file__])
        if not self.force and target.exists() and target.stat().st_mtime > newest:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        objects.mkdir(parents=True, exist_ok=True)
        if ext.name.endswith("_cpu"):
            build_cpu(ext.sources, objects, target)
            return
        try:
            build_cuda(ext.sources, target)
        except CompileError as error:
            target.unlink(missing_ok=True)
            print(f"embedcache: continuing without the CUDA library: {error}", file=sys.stderr, flush=True)


class AnyPythonWheel(bdist_wheel):
    """The libraries know nothing of Python: one wheel serves every version of it on a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def cpu_sources(*patterns: str) -> list[str]:
    """All of them: the source distribution is for every machine, whatever it is made on."""
    return [str(path) for pattern in patterns for path in sorted(Path().glob(pattern))]


def extensions() -> list[Extension]:
    headers = [str(path) for path in sorted(Path("csrc").rglob("*.h"))] + [
        str(path) for kind in ("cuh", "inc") for path in sorted(Path("csrc").rglob(f"*.{kind}"))
    ]
    cpu = {"embedcache.heads._heads_cpu": cpu_sources("csrc/heads/cpu/*.cpp", "csrc/simd/memory.cpp")}
    cpu["embedcache.encoder._encoder_cpu"] = cpu_sources("csrc/encoder/*.cpp", "csrc/simd/memory.cpp")
    cpu["embedcache.finetune._block_cpu"] = cpu_sources(
        "csrc/block/*.cpp", "csrc/heads/cpu/team.cpp", "csrc/simd/memory.cpp"
    )
    cpu["embedcache.encoder._tokenizer_cpu"] = cpu_sources("csrc/tokenizer/*.cpp")
    if not is_windows():
        cpu["embedcache.common._guard_cpu"] = cpu_sources("csrc/guard/*.cpp")
    cuda = [str(path) for path in sorted(Path("csrc/heads/cuda").glob("*.cu"))]
    found = []
    if os.environ.get("EMBEDCACHE_CPU") != "0":
        found += [Extension(name, sources, depends=headers) for name, sources in cpu.items()]
    if cuda and os.environ.get("EMBEDCACHE_CUDA") != "0":
        if find_nvcc():
            found.append(Extension("embedcache.heads._heads_cuda", cuda, depends=headers, optional=True))
        else:
            print("embedcache: nvcc not found, so no CUDA library", file=sys.stderr, flush=True)
    return found


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildLibraries, "bdist_wheel": AnyPythonWheel})
