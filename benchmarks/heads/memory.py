"""Memory of training: 256 heads on a memory-mapped matrix, and a matrix larger than the memory there is.

    python -m benchmarks.heads.memory [--heads 256] [--limit-mb 384] [--json PATH]

1. 256 heads of 768-512-2 on 8,192 float16 rows that are a memory map: the peak of the process's own memory (RssAnon and
   RssShmem; pages of the map can go at any time) above what it had before the call, against the heads' state, 12 bytes
   a weight: weight and two moments.
2. One head for an epoch on a matrix of 2.5 times --limit-mb, in a child process that a memory control group (Linux,
   root) holds to that much, page cache included, against the same without the limit and with the file in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, machine
from embedcache.heads.spec import head_grid
from embedcache.heads.train import train_heads

DIM, HIDDEN, CLASSES = 768, 512, 2
MIB = 2**20
STATE = 12 * (HIDDEN * (DIM + 1) + CLASSES * (HIDDEN + 1))  # bytes a head
CONTROL = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]  # versions 1 and 2


def own_memory() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))


def peak_above_now(work: Callable[[], Any]) -> int:
    """Bytes that the process needed at most while it worked, above what it had before."""
    before = peak = own_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = work()
    peak = max(peak, own_memory())
    done.set()
    watcher.join()
    del result
    return peak - before


def write_matrix(path: Path, rows: int) -> np.ndarray:
    """Labels of a random float16 matrix that is written to the file and dropped from the page cache."""
    rng, direction = np.random.default_rng(0), np.random.default_rng(1).standard_normal(DIM, dtype=np.float32)
    y = []
    with path.open("wb") as file:
        for start in range(0, rows, 16384):
            part = rng.standard_normal((min(16384, rows - start), DIM), dtype=np.float32)
            y.append(part @ direction > 0)
            part.astype(np.float16).tofile(file)
        file.flush()
        os.fsync(file.fileno())
    drop(path)
    return np.concatenate(y).astype(np.int32)


def drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def many_heads(folder: Path, heads: int) -> dict[str, Any]:
    y = write_matrix(folder / "x", 8192)
    x = np.memmap(folder / "x", np.float16, "r", shape=(len(y), DIM))
    train_heads(x[:64], y[:64], head_grid(hidden=[HIDDEN]), engine="native", epochs=1)
    grid = head_grid(hidden=[HIDDEN], seed=range(heads))
    peak = peak_above_now(lambda: train_heads(x, y, grid, engine="native", epochs=1))
    return {"heads": heads, "state_bytes": heads * STATE, "peak_bytes": peak, "above_state_bytes": peak - heads * STATE}


def one_epoch(path: Path, labels: Path) -> None:
    """The child of larger_than_memory: prints seconds."""
    y = np.load(labels)
    x = np.memmap(path, np.float16, "r", shape=(len(y), DIM))
    start = time.perf_counter()
    train_heads(x, y, head_grid(hidden=[HIDDEN]), engine="native", epochs=1)
    print(time.perf_counter() - start)


@contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """A new memory control group, or None where this process may not make one."""
    for root, name in zip(CONTROL, ("memory.limit_in_bytes", "memory.max"), strict=True):
        group = root / f"embedcache-{os.getpid()}"
        try:
            group.mkdir()
            (group / name).write_text(str(limit))
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        try:
            yield group / "cgroup.procs"
        finally:
            group.rmdir()
        return
    yield None


def larger_than_memory(folder: Path, limit: int) -> dict[str, Any]:
    path, labels = folder / "large", folder / "y.npy"
    y = write_matrix(path, int(2.5 * limit / (2 * DIM)))
    np.save(labels, y)
    seconds: dict[str, float | None] = {}
    child = [sys.executable, "-m", "benchmarks.heads.memory", "--child", str(path), str(labels)]
    with control_group(limit) as procs:
        if procs is None:
            return {"skipped": "no right to make a memory control group"}
        drop(path)
        enter = ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh"]
        seconds["limited"] = float(subprocess.run([*enter, *child], check=True, capture_output=True).stdout)
    drop(path)
    seconds["not limited, file not in memory"] = float(subprocess.run(child, check=True, capture_output=True).stdout)
    seconds["not limited, file in memory"] = float(subprocess.run(child, check=True, capture_output=True).stdout)
    return {"rows": len(y), "matrix_bytes": path.stat().st_size, "limit_bytes": limit, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=256)
    parser.add_argument("--limit-mb", type=int, default=384)
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        one_epoch(*options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        many = many_heads(Path(folder), options.heads)
        large = larger_than_memory(Path(folder), options.limit_mb * MIB)
    above = many["above_state_bytes"] / MIB
    print(
        f"{many['heads']} heads: state {many['state_bytes'] / MIB:.0f} MiB, peak {many['peak_bytes'] / MIB:.0f} MiB, "
        f"which is {abs(above):.0f} MiB {'more' if above > 0 else 'less'} than the state"
    )
    print(large)
    report = {"machine": machine("numpy", "torch"), "many_heads": many, "larger_than_memory": large}
    options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
