"""The CUDA engine's machine code: compiled, disassembled and read as instructions, basic blocks and loops.

Needs nvcc and nvdisasm: CUDA's own, or that of the wheel nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "csrc" / "heads" / "cuda" / "heads.cu"
# setup.py's flags for the device's part; -lineinfo changes no instruction.
FLAGS = ["-std=c++17", "-O3", "-arch=sm_90a", "-lineinfo", "-cubin", "-Xptxas", "-v"]


def find_nvcc() -> str | None:
    """The compiler, as setup.py looks for it."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return shutil.which("nvcc", path=str(Path(home, "bin"))) if home else shutil.which("nvcc")


def find_nvdisasm() -> str | None:
    """The disassembler: $NVDISASM, beside nvcc, on the path, or in a wheel's nvidia/cu*/bin."""
    nvcc = find_nvcc()
    beside = shutil.which("nvdisasm", path=str(Path(nvcc).parent)) if nvcc else None
    packages = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/bin/nvdisasm"))
    return os.environ.get("NVDISASM") or beside or shutil.which("nvdisasm") or (str(packages[-1]) if packages else None)


@dataclass(frozen=True)
class Place:
    """A line of the source."""

    file: str
    line: int


@dataclass
class Instruction:
    """One instruction with what its control bits say: when the next may issue, and which scoreboards it waits for."""

    address: int
    predicate: str  # "", "@P0", "@!P0"; "@!PT" never runs
    opcode: str
    operands: str
    stall: int = 0  # cycles until the warp may issue again
    write: int = 7  # scoreboard that its result releases; 7: none
    read: int = 7  # scoreboard that its operands' reading releases; 7: none
    wait: int = 0  # bit mask of scoreboards that must be free
    places: tuple[Place, ...] = ()  # the innermost first, then where each was inlined

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def never(self) -> bool:
        return self.predicate in ("@!PT", "@!UPT")

    @property
    def target(self) -> str | None:
        found = re.search(r"`\((\.L_x_\d+)\)", self.operands)
        return found[1] if found else None


@dataclass
class Block:
    """A basic block: instructions that run one after the other."""

    code: list[Instruction]
    after: list[int] = field(default_factory=list)  # numbers of the blocks that may follow; the fall-through first


@dataclass
class Loop:
    """A natural loop: its first block, its blocks, the blocks that jump back to the first."""

    head: int
    blocks: set[int]
    tails: set[int]


@dataclass
class Kernel:
    """A kernel's own code, without the functions that it calls."""

    name: str  # mangled
    code: list[Instruction]
    labels: dict[str, int]  # the address that each stands for
    spilled: int = 0  # bytes
    registers: int = 0

    def count(self, *names: str, code: Iterable[Instruction] | None = None) -> int:
        """How many instructions begin with one of the names: HMMA, or MEMBAR.ALL.GPU."""
        return sum(i.opcode.startswith(names) and not i.never for i in (self.code if code is None else code))

    @cached_property
    def blocks(self) -> list[Block]:
        starts, targets = {self.code[0].address}, set(self.labels.values())
        for before, after in zip(self.code, self.code[1:], strict=False):
            if after.address in targets or before.name in ("BRA", "EXIT", "RET", "BRX"):
                starts.add(after.address)
        blocks: list[Block] = []
        for instruction in self.code:
            if instruction.address in starts:
                blocks.append(Block([]))
            blocks[-1].code.append(instruction)
        number = {block.code[0].address: i for i, block in enumerate(blocks)}
        for i, block in enumerate(blocks):
            last, follow = block.code[-1], []
            leaves = last.name in ("BRA", "EXIT", "RET") and (not last.predicate or last.predicate in ("@PT", "@UPT"))
            if not leaves and i + 1 < len(blocks):
                follow.append(i + 1)
            if last.name == "BRA" and last.target in self.labels and self.labels[last.target] in number:
                follow.append(number[self.labels[last.target]])
            block.after = follow
        return blocks

    @cached_property
    def loops(self) -> list[Loop]:
        """By head; loops of one head are one."""
        dominators, before = self._dominators(), self._before()
        found: dict[int, Loop] = {}
        for tail, block in enumerate(self.blocks):
            for head in block.after:
                if tail not in dominators or head not in dominators[tail]:
                    continue
                loop = found.setdefault(head, Loop(head, {head}, set()))
                loop.tails.add(tail)
                todo = [tail]
                while todo:
                    at = todo.pop()
                    if at not in loop.blocks:
                        loop.blocks.add(at)
                        todo += before[at]
        return [found[head] for head in sorted(found)]

    def _before(self) -> dict[int, list[int]]:
        before: dict[int, list[int]] = {i: [] for i in range(len(self.blocks))}
        for i, block in enumerate(self.blocks):
            for j in block.after:
                before[j].append(i)
        return before

    def _dominators(self) -> dict[int, set[int]]:
        order, seen, stack = [], {0}, [(0, iter(self.blocks[0].after))]
        while stack:  # depth first, without recursion: kernels have thousands of blocks
            at, rest = stack[-1]
            new = next((j for j in rest if j not in seen), None)
            if new is None:
                order.append(at)
                stack.pop()
            else:
                seen.add(new)
                stack.append((new, iter(self.blocks[new].after)))
        order.reverse()
        place, before = {b: i for i, b in enumerate(order)}, self._before()
        above = {0: 0}  # immediate dominators (Cooper, Harvey and Kennedy)
        changed = True
        while changed:
            changed = False
            for b in order[1:]:
                known = [p for p in before[b] if p in above]
                best = known[0]
                for p in known[1:]:
                    while p != best:
                        if place[p] > place[best]:
                            p = above[p]
                        else:
                            best = above[best]
                if above.get(b) != best:
                    above[b], changed = best, True
        sets: dict[int, set[int]] = {0: {0}}
        for b in order[1:]:
            sets[b] = sets[above[b]] | {b}
        return sets


LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P[T0-9]+\s+)?([A-Z0-9_.]+)\s*(.*?)\s*;\s+/\* (0x[0-9a-f]{16}) \*/")
UPPER = re.compile(r"^\s+/\* (0x[0-9a-f]{16}) \*/")
SITE = re.compile(r'"([^"]+)", line (\d+)')


def compile_cubin(folder: Path, flags: Iterable[str] = ()) -> tuple[Path, str]:
    """Returns:
    The engine's machine code for sm_90a, and what ptxas said of registers and spills.

    Raises:
        RuntimeError: nvcc is missing or fails; the message holds its own words.
    """
    nvcc, cubin = find_nvcc(), folder / "heads.cubin"
    if nvcc is None:
        raise RuntimeError("nvcc is neither on the path nor under CUDA_HOME")
    command = [nvcc, *FLAGS, *flags, str(SOURCE), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc failed:\n{done.stderr[-2000:]}")
    return cubin, done.stderr


def read_kernels(cubin: Path, ptxas: str = "") -> list[Kernel]:
    """Every kernel of a cubin.

    Raises:
        RuntimeError: nvdisasm is missing or cannot read the file.
    """
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        raise RuntimeError("nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
    done = subprocess.run([nvdisasm, "-hex", "-gi", "-c", str(cubin)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvdisasm failed: {done.stderr[-500:]}")
    kernels = [_kernel(name, lines) for name, lines in _sections(done.stdout)]
    for name, spilled, registers in _resources(ptxas):
        for kernel in kernels:
            if kernel.name == name:
                kernel.spilled, kernel.registers = spilled, registers
    return kernels


def _sections(text: str) -> Iterable[tuple[str, list[str]]]:
    name, lines = "", []
    for line in text.splitlines():
        if line.startswith((".text.", "\t.section")):
            if name:
                yield name, lines
            name, lines = line[6:].rstrip(":") if line.startswith(".text.") else "", []
        elif name:
            lines.append(line)
    if name:
        yield name, lines


def _kernel(name: str, lines: list[str]) -> Kernel:
    """The functions that it calls stand behind it in its section, each under a label that begins with $."""
    kernel, waiting, places = Kernel(name, [], {}), [], []
    for line in lines:
        if line.startswith("$"):
            break
        if line.startswith(".L_x_"):
            waiting.append(line.rstrip(":"))
        elif "//## File" in line:
            sites = [Place(Path(file).name, int(number)) for file, number in SITE.findall(line)]
            places = [*(places if places and places[-1] == sites[0] else sites[:1]), *sites[1:]]
        elif found := LINE.match(line):
            address = int(found[1], 16)
            kernel.labels.update(dict.fromkeys(waiting, address))
            waiting = []
            kernel.code.append(Instruction(address, (found[2] or "").strip(), found[3], found[4], places=tuple(places)))
        elif (found := UPPER.match(line)) and kernel.code:
            control, last = int(found[1], 16) >> 41, kernel.code[-1]
            last.stall, last.write, last.read = control & 15, control >> 5 & 7, control >> 8 & 7
            last.wait = control >> 11 & 63
    return kernel


def _resources(ptxas: str) -> Iterable[tuple[str, int, int]]:
    """Name, bytes spilled, registers of each kernel."""
    for part in ptxas.split("Compiling entry function '")[1:]:
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        if spills and registers:
            yield part.split("'")[0], int(spills[1]) + int(spills[2]), int(registers[1])
