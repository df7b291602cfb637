"""The paper multiprocessor of benchmarks/heads, and how machine code is read, on small made-up kernels."""

from __future__ import annotations

from benchmarks.heads.cycle_model import short_name
from benchmarks.heads.sass import Instruction, Kernel
from benchmarks.heads.sass_trace import longest_way, varying_addresses
from benchmarks.heads.sm_pipeline import COSTS, Multiprocessor, Step, wavefronts


def steps(*code: tuple) -> list[Step]:
    """From (opcode, operands, control bits)."""
    made = [Instruction(16 * k, "", opcode, operands, **bits) for k, (opcode, operands, bits) in enumerate(code)]
    return [Step(i, wavefronts(i, uniform=False)) for i in made]


def run(*warps: list[Step], blocks: int = 1) -> float:
    return Multiprocessor(list(warps), blocks).run().cycles


def test_stalls_scoreboards_and_pipes() -> None:
    add = ("FADD", "R1, R2, R3", {"stall": 4})
    assert run(steps(add, add, add)) == 9  # the last issues after two stalls, and that is the end
    load, use = ("LDS", "R1, [R2]", {"stall": 1, "write": 0}), ("FADD", "R1, R1, R3", {"stall": 1, "wait": 1})
    assert run(steps(load, use)) == 1 + COSTS["shared_latency"] + 1
    root = ("MUFU.SQRT", "R1, R2", {"stall": 1})
    assert run(steps(root, root)) == COSTS["special_rate"] + 1
    assert run(*[steps(root)] * 4) == 1  # each scheduler has a pipe of its own
    assert run(*[steps(root)] * 5) == COSTS["special_rate"] + 1


def test_warps_share_shared_memory_and_wait_for_each_other() -> None:
    load, use = ("LDS.128", "R4, [R2]", {"stall": 1, "write": 0}), ("FADD", "R1, R4, R3", {"stall": 1, "wait": 1})
    assert run(steps(load, use)) == 4 + COSTS["shared_latency"] + 1
    assert run(*[steps(load, use)] * 4) == 16 + COSTS["shared_latency"] + 1
    meet, slow = ("BAR.SYNC", "0x0", {"stall": 1}), ("FADD", "R1, R2, R3", {"stall": 15})
    done = Multiprocessor([steps(slow, meet), steps(meet)]).run()
    assert [when for when, _ in done.barriers] == [15 + COSTS["barrier"]]
    apart = Multiprocessor([steps(slow, meet)], blocks=2).run()  # a block does not wait for the other
    assert [when for when, _ in apart.barriers] == [15 + COSTS["barrier"]]


def test_copies_are_waited_for_by_group() -> None:
    copy, end = ("LDGSTS.E.BYPASS.128", "[R1], [R2]", {"stall": 1}), ("LDGDEPBAR", "", {"stall": 1})
    one_pending, none_pending = ("DEPBAR.LE", "SB0, 0x1", {"stall": 1}), ("DEPBAR.LE", "SB0, 0x0", {"stall": 1})
    assert run(steps(copy, end, copy, end, none_pending)) == 2 + 4 + 4 - 2 + COSTS["l2_latency"] + 1
    assert run(steps(copy, end, copy, end, one_pending)) == 4 + COSTS["l2_latency"] + 1


def kernel(text: str) -> Kernel:
    """Lines "label:" or "predicate opcode operands", an instruction every 16 bytes."""
    code, labels = [], {}
    for line in text.strip().splitlines():
        words = line.split()
        if words[0].endswith(":"):
            labels[words[0][:-1]] = 16 * len(code)
            continue
        predicate = words.pop(0) if words[0].startswith("@") else ""
        code.append(Instruction(16 * len(code), predicate, words[0], " ".join(words[1:])))
    return Kernel("made", code, labels)


STEP_LOOP = """
S2R R0, SR_TID.X
MOV R1, 0x10
.L_x_0:
LDS.128 R4, [R1]
LDS.128 R8, [R0+0x10]
@P0 BRA `(.L_x_1)
FADD R2, R2, R4
FADD R2, R2, R5
CALL.REL.NOINC `($slow)
.L_x_1:
@P1 BRA `(.L_x_2)
FMUL R3, R2, R8
.L_x_2:
HMMA.1688.F32.TF32 R12, R4, R8, R12
@P2 BRA `(.L_x_2)
BAR.SYNC 0x0
@P3 BRA `(.L_x_0)
EXIT
"""


def test_the_longest_way_takes_no_call_and_repeats_products() -> None:
    made = kernel(STEP_LOOP)
    outer, inner = made.loops
    assert (len(outer.blocks), len(inner.blocks), made.count("HMMA")) == (6, 1, 1)
    names = [i.name for i in longest_way(made, outer, warp=0, chunks=3)]
    assert names == ["LDS", "LDS", "BRA", "BRA", "FMUL", *["HMMA", "BRA"] * 3, "BAR", "BRA"]


def test_which_addresses_differ_from_lane_to_lane() -> None:
    made = kernel(STEP_LOOP)
    assert varying_addresses(made) == {3 * 16}
    assert [wavefronts(i, uniform=i.address != 3 * 16) for i in made.code if i.name == "LDS"] == [1, 4]


def test_names() -> None:
    mangled = "_ZN2ec14cluster_kernelINS_13TrainClustersINS_4Tf32ELi12ELi2EEEEEvNS_6LaunchE"
    assert short_name(mangled) == "TrainClusters<Tf32, 12, 2>"
    assert short_name("_ZN2ec6kernelINS_10FirstLayerILb1ELb0EEEEEvNS_6LaunchE") == "FirstLayer<1, 0>"
    assert short_name("_ZN2ec6kernelINS_11OutputLayerEEEvNS_6LaunchE") == "OutputLayer"
