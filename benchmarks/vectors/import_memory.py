"""How much memory does `embedcache import` take? Vectors of NumPy with a table of texts and labels beside them.

    python -m benchmarks.vectors.import_memory [--rows 1000000,10000000] [--dim 384] [--json PATH]

Memory is the highest that the process held at any moment (VmHWM: file pages that are mapped count, the system's cache
of files that were read or written does not). The vectors are random float16 numbers, the table is Parquet with a text
of some 40 bytes, a label and an id; the same rows in the same order. The time is for the record: whole command, once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, machine

HIGHEST = "int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
COMMAND = f"""import atexit, sys
atexit.register(lambda: print({HIGHEST}, file=sys.stderr))
from embedcache.cli import main
main()"""
TOGETHER = 100_000  # rows that are made together


def write_input(folder: Path, rows: int, dim: int) -> tuple[Path, Path]:
    """(the vectors, the table)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors, table = folder / "vectors.npy", folder / "table.parquet"
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    part = np.random.default_rng(0).standard_normal((TOGETHER, dim)).astype(np.float16)
    schema = pa.schema({"id": pa.string(), "text": pa.string(), "label": pa.string()})
    with vectors.open("wb") as file, pq.ParquetWriter(table, schema) as writer:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, TOGETHER):
            numbers = range(start, min(start + TOGETHER, rows))
            part[:, 0] = start / rows
            file.write(part[: len(numbers)].data)
            texts = [f"review number {i}, of {i % 977} words or so" for i in numbers]
            columns = [[f"r{i}" for i in numbers], texts, ["good" if i % 3 else "bad" for i in numbers]]
            writer.write_table(pa.table(columns, schema=schema))
    return vectors, table


def measure(folder: Path, rows: int, dim: int) -> dict[str, Any]:
    """One import, then verify."""
    vectors, table = write_input(folder, rows, dim)
    cache = folder / "cache.h5"
    command = [sys.executable, "-c", COMMAND, "import", vectors, "--table", table, "--id", "id", "-o", cache, "--json"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*map(str, command)], capture_output=True, check=True)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout)
    size, source = cache.stat().st_size, vectors.stat().st_size + table.stat().st_size
    vectors.unlink()
    verified = subprocess.run([sys.executable, "-m", "embedcache", "verify", str(cache), "--json"], capture_output=True)
    return {
        "rows": report["rows"],
        "dim": dim,
        "highest_kb": int(done.stderr.split()[-1]),
        "source_bytes": source,
        "cache_bytes": size,
        "seconds": seconds,
        "processor_seconds": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "verified": json.loads(verified.stdout)["ok"],
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--json", type=Path, default=RESULTS / "import-memory.json")
    arguments = parser.parse_args()
    found = []
    for rows in map(int, arguments.rows.split(",")):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            found.append(measure(Path(folder), rows, arguments.dim))
            print(json.dumps(found[-1]))
    document = {"machine": machine("numpy", "pyarrow", "h5py"), "imports": found}
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
