"""One multiprocessor of an H100, warp by warp: which cycle each instruction of a trace issues in.

A trace is the list of instructions that a warp runs. A scheduler issues one instruction a cycle from its warps, in
order for each warp, once the instruction's control bits allow it (stalls, scoreboards; the compiler writes both into
the code), its pipe is free, and the barrier that it stands at is passed. Shared memory takes a wavefront of 128 bytes
a cycle for the whole multiprocessor.

What no machine code says is in COSTS: measured on an H200 (the H100's multiprocessor, 1.98 GHz) where MEASURED names
it, else from public microbenchmarks of the H100, rounded.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from benchmarks.heads.sass import Instruction

SCHEDULERS = 4
# Cycles. Latencies count from issue to the release of the scoreboard; "rate" is how long a scheduler's pipe is taken.
COSTS = {
    "shared_latency": 25,
    "l2_latency": 265,  # global loads and background copies: x and the settings lie in L2
    "remote_shared_latency": 200,  # a load of another block's shared memory
    "special_latency": 18,  # roots, quotients, conversions
    "double_latency": 8,
    "constant_latency": 30,
    "tensor_latency": 25,
    "special_rate": 8,  # 16 a cycle and multiprocessor
    "double_rate": 2,
    "integer_rate": 2,  # 16 lanes a scheduler
    "pack_rate": 2,  # two numbers to bfloat16
    "tensor_rate": 6.3,  # m16n8k8 TF32: 4 at the full rate, of which mma.sync reaches some 62 %
    "bfloat16_tensor_rate": 6.3,  # m16n8k16 bfloat16: twice the products in the same time
    "barrier": 28,
    "cluster_barrier": 190,
    "gpu_fence": 500,  # MEMBAR.ALL.GPU with loads under way
    "remote_store": 250,  # st.async to another block, until who waits for it there goes on
    "queue": 40,  # wavefronts that may wait at shared memory before a warp cannot issue more
}
MEASURED = ("shared_latency", "l2_latency", "special_latency", "double_latency", "tensor_latency", "pack_rate",
            "tensor_rate", "bfloat16_tensor_rate", "barrier", "remote_store")  # fmt: skip
INTEGER = (
    *("IADD3", "LOP3", "SHF", "LEA", "ISETP", "FSETP", "SEL", "FSEL", "PRMT", "MOV", "FMNMX", "VIADD", "VIMNMX"),
    *("IMAD", "PLOP3", "IABS", "IMNMX", "CS2R", "POPC", "FLO", "BMSK", "SGXT", "R2P", "P2R"),
)
SPECIAL = ("MUFU", "F2F", "F2I", "I2F", "I2FP")
DOUBLE = ("DFMA", "DADD", "DMUL", "DSETP", "DMNMX")
REMOTE = ("shared_of",)  # source functions in whose loads another block's memory is read


def pipe_of(instruction: Instruction) -> tuple[str, float]:
    """The pipe of its scheduler that an instruction takes, and for how many cycles; "" where issuing it is all."""
    name = instruction.name
    if name in ("HMMA", "QMMA", "IMMA"):
        wide = ".16816." in instruction.opcode
        return "tensor", COSTS["bfloat16_tensor_rate" if wide else "tensor_rate"]
    if name in SPECIAL:
        return "special", COSTS["special_rate"]
    if name in DOUBLE:
        return "double", COSTS["double_rate"]
    if name == "F2FP":
        return "integer", COSTS["pack_rate"]
    if name in INTEGER and not instruction.opcode.startswith(("IMAD.MOV", "CS2R")):
        return "multiply" if name == "IMAD" else "integer", COSTS["integer_rate"]
    return "", 0.0


def wavefronts(instruction: Instruction, uniform: bool) -> int:
    """Of 128 bytes through shared memory, without bank conflicts; ``uniform``: all lanes have the same address."""
    if instruction.name not in ("LDS", "STS", "LDSM", "STSM", "LDGSTS", "ATOMS") or instruction.never:
        return 0
    if instruction.name == "LDSM":
        return 4 if ".4" in instruction.opcode else 2 if ".2" in instruction.opcode else 1
    size = 4 if ".128" in instruction.opcode else 2 if ".64" in instruction.opcode else 1
    return 1 if uniform else size


def latency_of(instruction: Instruction, remote: bool) -> float:
    """From issue (or from the end of its wavefronts) to the release of its scoreboard."""
    name = instruction.name
    if name in ("LDS", "STS", "LDSM", "ATOMS", "STAS"):
        return COSTS["shared_latency"]
    if name in ("LDG", "LD", "ATOMG", "ATOM", "RED", "LDGSTS", "UBLKCP"):
        return COSTS["remote_shared_latency"] if remote and name == "LD" else COSTS["l2_latency"]
    if name in SPECIAL:
        return COSTS["special_latency"]
    if name in DOUBLE:
        return COSTS["double_latency"]
    if name == "HMMA":
        return COSTS["tensor_latency"]
    return COSTS["constant_latency"] if name in ("LDC", "S2R", "S2UR", "R2UR", "CS2R") else 12


@dataclass
class Step:
    """An instruction of a trace, with all that the simulation asks of it."""

    instruction: Instruction
    wavefronts: int = 0
    remote: bool = False

    def __post_init__(self) -> None:
        i = self.instruction
        self.pipe, self.rate = pipe_of(i)
        self.latency = latency_of(i, self.remote)
        self.boards = [board for board in range(6) if i.wait >> board & 1]
        self.stall = max(i.stall, 1)
        self.pending = int(i.operands.split(",")[1], 16) if i.name == "DEPBAR" and "SB0" in i.operands else -1


class Warp:
    """Where a warp is in its trace, and what it waits for."""

    def __init__(self, trace: list[Step], block: int) -> None:
        self.trace, self.block, self.at = trace, block, 0
        self.free = 0.0  # when it may issue next; infinity at a barrier
        self.boards = [0.0] * 6  # when each scoreboard is released
        self.copies = 0.0  # when the copies that no group holds yet are there
        self.groups: deque[float] = deque()  # when each group of copies is there
        self.barriers = 0

    def ready(self, pipes: dict[str, float], shared_free: float) -> float:
        """When its next instruction can issue, as far as is known."""
        step, when = self.trace[self.at], self.free
        for board in step.boards:
            when = max(when, self.boards[board])
        while step.pending >= 0 and len(self.groups) > step.pending:
            self.free = max(self.free, self.groups.popleft())
            when = max(when, self.free)
        if step.pipe:
            when = max(when, pipes.get(step.pipe, 0.0))
        return max(when, shared_free - COSTS["queue"]) if step.wavefronts else when


@dataclass
class Report:
    """What a simulation found."""

    cycles: float
    barriers: list[tuple[float, Instruction]]  # when the last warp of block 0 passed each
    busy: dict[str, float]  # cycles that each part was taken, of the busiest scheduler


class Multiprocessor:
    """Runs a trace for each warp of a block, ``blocks`` blocks beside each other; all warps pass the same barriers."""

    def __init__(self, traces: list[list[Step]], blocks: int = 1) -> None:
        self.warps = [Warp(trace, block) for block in range(blocks) for trace in traces]
        self.of_scheduler = [self.warps[s::SCHEDULERS] for s in range(SCHEDULERS)]
        self.width, self.cycle = len(traces), 0.0
        self.pipes: list[dict[str, float]] = [{} for _ in range(SCHEDULERS)]
        self.busy: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(SCHEDULERS)]
        self.shared_free = self.shared_busy = 0.0
        self.pushed = 0.0  # when what the blocks store into each other is there: they go in step
        self.arrived: Counter[tuple[int, int]] = Counter()
        self.passed: list[tuple[float, Instruction]] = []

    def run(self) -> Report:
        """Until every warp has run its trace."""
        left = sum(len(warp.trace) for warp in self.warps)
        while left:
            soonest = float("inf")
            for s, warps in enumerate(self.of_scheduler):
                for k, warp in enumerate(warps):
                    if warp.at == len(warp.trace):
                        continue
                    when = warp.ready(self.pipes[s], self.shared_free)
                    if when <= self.cycle:
                        self._issue(s, warp)
                        warps.append(warps.pop(k))  # the others come first next time
                        left -= 1
                        soonest = self.cycle + 1
                        break
                    soonest = min(soonest, when)
            self.cycle = max(self.cycle + 1, soonest) if soonest < float("inf") else self.cycle + 1
        names = {name for counter in self.busy for name in counter}
        busy = {name: max(counter[name] for counter in self.busy) for name in sorted(names)}
        return Report(self.cycle, self.passed, {**busy, "shared memory": self.shared_busy})

    def _issue(self, s: int, warp: Warp) -> None:
        step, cycle = warp.trace[warp.at], self.cycle
        i, done = step.instruction, cycle + step.latency
        warp.free = cycle + step.stall
        self.busy[s]["issue"] += 1
        if step.pipe:
            self.pipes[s][step.pipe] = cycle + step.rate
            self.busy[s][step.pipe] += step.rate
        if step.wavefronts:
            self.shared_free = max(self.shared_free, cycle) + step.wavefronts
            self.shared_busy += step.wavefronts
            done = self.shared_free + step.latency
        if i.write < 6:
            warp.boards[i.write] = max(warp.boards[i.write], done)
        if i.read < 6:
            warp.boards[i.read] = max(warp.boards[i.read], max(self.shared_free, cycle) + 8)
        if i.name == "STAS":
            self.pushed = cycle + COSTS["remote_store"]
        elif i.name == "SYNCS" and step.remote:
            warp.free = max(warp.free, self.pushed)
        elif i.name in ("LDGSTS", "UBLKCP"):
            warp.copies = done
        elif i.name == "LDGDEPBAR":
            warp.groups.append(warp.copies)
        elif i.opcode == "MEMBAR.ALL.GPU":
            warp.free = cycle + COSTS["gpu_fence"]
        elif i.name == "BAR" and ".ARV" not in i.opcode:
            self._stop(warp, COSTS["barrier"])
        elif i.name == "UCGABAR_WAIT":
            self._stop(warp, COSTS["cluster_barrier"])
        warp.at += 1

    def _stop(self, warp: Warp, extra: float) -> None:
        """At a barrier, until the block's other warps are there; of a cluster too, whose blocks are alike."""
        key = (warp.block, warp.barriers)
        warp.barriers += 1
        warp.free = float("inf")
        self.arrived[key] += 1
        if self.arrived[key] < self.width:
            return
        for other in self.warps:
            if other.block == warp.block:
                other.free = self.cycle + extra
        if warp.block == 0:
            self.passed.append((self.cycle + extra, warp.trace[warp.at].instruction))
