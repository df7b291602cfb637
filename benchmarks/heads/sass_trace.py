"""The way that a warp goes through a kernel's step loop: the longest one, but for what the source says it does not run.

The machine code knows no loop's length and no branch's outcome, so both are assumed: see AVOIDED, TRIPS and ROLES.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from functools import cache

from benchmarks.heads.sass import SOURCE, Block, Instruction, Kernel, Loop, Place
from benchmarks.heads.sm_pipeline import REMOTE, Step, wavefronts

# Source that the work here (a class a row, plain log-likelihood, no smoothing, constant rate, no weights) never runs.
AVOIDED = (
    *("label_loss", "number_loss", "ec_label_loss", "ec_label_gradient", "ec_loss_value", "ec_loss_slope"),
    *("ec_focal_value", "ec_focal_slope", "any_loss", "adamw_of"),  # adamw_of: once in 32 steps
)
AVOIDED_LINES = ("spread", "pulls", "cos(", "return 2.0 * (z")
AVOIDED_LOADS = ("loss.weight[c]",)  # lines whose loads do not run, though a test of theirs does
# Functions with loops over the outputs, of which there are two: code that the compiler unrolled for more does not run.
OVER_OUTPUTS, OUTPUTS = ("backward_start", "row_loss", "class_loss"), 2
REMOTE_WAITS = ("arrived",)  # a wait for what other blocks store
# Source functions that some warps of a block run alone, while the others wait for them.
ROLES: dict[str, set[int]] = {"look_ahead": {0}, "add_loss": {7}}


@cache
def source_lines(file: str) -> list[str]:
    for folder in (SOURCE.parent, SOURCE.parent.parent, SOURCE.parent.parent / "losses"):
        if (folder / file).exists():
            return (folder / file).read_text().splitlines()
    return []


@cache
def function_at(place: Place) -> str:
    """The name of the function that a line is in: of the nearest line above that begins one."""
    lines = source_lines(place.file)
    for line in reversed(lines[: place.line]):
        found = re.match(r"^\s*(?:EC_FN|EC_DEVICE|static EC_DEVICE_METHOD|EC_DEVICE_METHOD)\b[^=;]*?(\w+)\(", line)
        if found:
            return found[1]
    return ""


@cache
def text_at(place: Place) -> str:
    lines = source_lines(place.file)
    return lines[place.line - 1].strip() if 0 < place.line <= len(lines) else ""


def functions_of(instruction: Instruction) -> set[str]:
    return {function_at(place) for place in instruction.places}


def _is_avoided_line(i: Instruction) -> bool:
    return any(part in text_at(place) for part in AVOIDED_LINES for place in i.places[:1])


def _is_avoided_load(i: Instruction) -> bool:
    return i.name == "LD" and any(part in text_at(place) for part in AVOIDED_LOADS for place in i.places[:1])


def penalty(block: Block, warp: int) -> int:
    """How much speaks against a warp's running the block: a call of a slow path, source that is not for it.

    The compiler moves instructions of one branch before another, so most of a block decides, not one instruction.
    """
    if any(i.name == "CALL" for i in block.code):
        return 1000
    against = 0
    for i in block.code:
        functions = functions_of(i)
        others = any(warp not in ROLES[name] for name in functions & set(ROLES))
        against += bool(others or _is_avoided_line(i) or functions & set(AVOIDED))
        against += len(block.code) * (_is_avoided_load(i) and not i.predicate)
    loads = Counter(i.places[0] for i in block.code if i.name in ("LDS", "LD") and i.places)
    unrolled = any(n > OUTPUTS + 1 and function_at(place) in OVER_OUTPUTS for place, n in loads.items())
    if 2 * against > len(block.code) or unrolled:
        return 10
    stores = [i for i in block.code if i.name == "STS" and i.places and not _is_avoided_line(i)]
    own = any(warp in ROLES[name] for i in stores for name in functions_of(i) & set(ROLES))
    return -30 if own else 0  # what only this warp does, it does: it stores the results


def trips_of(kernel: Kernel, loop: Loop, chunks: int) -> int:
    """How often an inner loop runs: a chunk a turn where it multiplies on the tensor cores, else once."""
    products = kernel.count("HMMA", code=[i for b in loop.blocks for i in kernel.blocks[b].code])
    return chunks if products else 1


def step_loop(kernel: Kernel) -> Loop:
    """The loop with all the tensor cores' products, the largest of those."""
    blocks = kernel.blocks
    return max(
        kernel.loops,
        key=lambda one: (
            kernel.count("HMMA", "HGMMA", code=[i for b in one.blocks for i in blocks[b].code]),
            len(one.blocks),
        ),
    )


def longest_way(kernel: Kernel, loop: Loop, warp: int, chunks: int) -> list[Instruction]:
    """One turn of a loop by the way with the most instructions."""
    return [i for b in _turn(kernel, loop, warp, chunks) for i in kernel.blocks[b].code]


Way = tuple[int, int, list[int]]  # minus its penalty, its instructions, its blocks


def _turn(kernel: Kernel, loop: Loop, warp: int, chunks: int) -> list[int]:
    """Blocks of a turn, inner loops unrolled, from the loop's head to the branch back."""
    inside = [inner for inner in kernel.loops if inner.blocks < loop.blocks and inner.head != loop.head]
    outer = [inner for inner in inside if not any(inner.blocks < other.blocks for other in inside)]
    entry = {inner.head: inner for inner in outer}
    owner = {b: inner for inner in outer for b in inner.blocks}
    best: dict[int, Way | None] = {}
    for b in _topological(kernel, loop, owner):
        best[b] = _best_from(kernel, loop, b, entry, owner, best, warp, chunks)
    found = best[loop.head]
    if found is None:
        raise RuntimeError(f"no way through the loop at {kernel.blocks[loop.head].code[0].address:#x} of {kernel.name}")
    return found[2]


def _exits(kernel: Kernel, loop: Loop, inner: Loop) -> list[tuple[int, int]]:
    """Edges out of an inner loop that stay in the outer one."""
    edges = [(u, v) for u in inner.blocks for v in kernel.blocks[u].after]
    return [(u, v) for u, v in edges if v not in inner.blocks and v in loop.blocks]


def _topological(kernel: Kernel, loop: Loop, owner: dict[int, Loop]) -> list[int]:
    """Blocks and heads of inner loops, each after all that may follow it."""
    done: list[int] = []
    state: dict[int, int] = {}
    stack = [(loop.head, False)]
    while stack:
        b, leaving = stack.pop()
        if leaving:
            done.append(b)
            continue
        if state.get(b):
            continue
        state[b] = 1
        stack.append((b, True))
        follow = [v for _, v in _exits(kernel, loop, owner[b])] if b in owner else kernel.blocks[b].after
        stack += [(owner[v].head if v in owner else v, False) for v in follow if v in loop.blocks and v != loop.head]
    return done


def _best_from(
    kernel: Kernel,
    loop: Loop,
    b: int,
    entry: dict[int, Loop],
    owner: dict[int, Loop],
    best: dict[int, Way | None],
    warp: int,
    chunks: int,
) -> Way | None:
    """The longest way from block b to the end of the turn; None where there is none."""
    ways: list[Way] = []

    def add(before: list[int], v: int) -> None:
        rest = (0, 0, []) if v == loop.head else best.get(owner[v].head if v in owner else v)
        if rest is not None:
            against = sum(penalty(kernel.blocks[x], warp) for x in before)
            length = sum(len(kernel.blocks[x].code) for x in before)
            ways.append((rest[0] - against, rest[1] + length, before + rest[2]))

    if b in entry:
        inner = entry[b]
        try:
            body = _turn(kernel, inner, warp, chunks)
        except RuntimeError:
            return None
        repeated = body * (trips_of(kernel, inner, chunks) - 1)
        for u, v in _exits(kernel, loop, inner):
            reached = _reach(kernel, inner, u, body)
            if reached is not None and (v in loop.blocks):
                add(repeated + reached, v)
    else:
        for v in kernel.blocks[b].after:
            if v in loop.blocks:
                add([b], v)
    return max(ways, key=lambda way: way[:2]) if ways else None


def _reach(kernel: Kernel, inner: Loop, u: int, body: list[int]) -> list[int] | None:
    """The part of a turn up to block u, from which the loop is left."""
    return body[: body.index(u) + 1] if u in body else None


REGISTER = re.compile(r"\b(U?[RP])(\d+)\b")
VARYING = ("SR_TID", "SR_LANEID", "SR_EQMASK", "SR_LTMASK")


def _destinations(i: Instruction) -> list[str]:
    """Registers that an instruction writes."""
    if i.name in ("STS", "STG", "ST", "RED", "LDGSTS", "BAR", "BRA", "DEPBAR", "STSM", "STAS", "SYNCS", "UBLKCP"):
        return []
    out: list[str] = []
    for part in i.operands.split(",")[:2]:
        text = part.strip().split(".")[0]
        found = re.fullmatch(r"(U?[RP])(\d+)", text)
        if not found or (out and found[1] not in ("P", "UP")):
            break
        out.append(text)
        if found[1] == "R":
            wide = 4 if ".128" in i.opcode or i.name in ("HMMA", "LDSM") else 2
            narrow = not (".64" in i.opcode or ".WIDE" in i.opcode or i.name in (*("DADD", "DFMA", "DMUL", "CS2R"),))
            wide = 1 if narrow and wide == 2 else wide
            out += [f"R{int(found[2]) + k}" for k in range(1, wide)]
    return out


def varying_addresses(kernel: Kernel) -> set[int]:
    """Addresses of the instructions whose memory address differs from lane to lane: a data-flow over the blocks."""
    facts = [[_facts(i) for i in block.code] for block in kernel.blocks]
    into: list[set[str]] = [set() for _ in facts]
    todo, seen, varying = [0], set(), set()
    while todo:
        heapq.heapify(todo)
        b = heapq.heappop(todo)
        seen.add(b)
        state = set(into[b])
        for address, outs, sources, base, is_source, is_always in facts[b]:
            if not base.isdisjoint(state):
                varying.add(address)
            if is_source or not sources.isdisjoint(state):
                state.update(outs)
            elif is_always:
                state.difference_update(outs)
        for v in kernel.blocks[b].after:
            if v not in seen or not state <= into[v]:
                into[v] |= state
                if v not in todo:
                    todo.append(v)
    return varying


def _facts(i: Instruction) -> tuple[int, list[str], set[str], set[str], bool, bool]:
    """Its address, what it writes and reads, its memory address's registers; is it a source, does it always run."""
    outs = _destinations(i)
    reads = [a + b for a, b in REGISTER.findall(i.operands + " " + i.predicate)]
    for register in outs[:1]:
        reads.remove(register)  # once: it may be read too
    memory = re.search(r"\[(.*)\]", i.operands)
    base = {a + b for a, b in REGISTER.findall(memory[1])} if memory else set()
    is_source = any(name in i.operands for name in VARYING) or i.name == "SHFL"
    return i.address, outs, set(reads), base, is_source, not i.predicate


def trace(kernel: Kernel, loop: Loop, warp: int, chunks: int, varying: set[int]) -> list[Step]:
    """One turn of the step loop as the pipeline takes it."""
    steps = []
    for i in longest_way(kernel, loop, warp, chunks):
        if _is_avoided_load(i):
            continue  # predicated: it issues, but nobody waits for it
        remote = any("shared_of" in text_at(place) for place in i.places) or bool(functions_of(i) & set(REMOTE))
        waits = [text_at(place) for place in i.places] if i.name == "SYNCS" else []
        remote = remote or any(f"{what}, parity" in line for what in REMOTE_WAITS for line in waits)
        steps.append(Step(i, wavefronts(i, i.address not in varying), remote))
    return [step for step in steps if not step.instruction.never or step.instruction.name == "LDS"]
