"""Planning: everything of an extract but the encoder. Rates, memory, the first vector, a re-run.

    python -m benchmarks.extraction.planning [--folder DIR] [--rows 1000000] [--many 10000000] [--json PATH]

Tables of real reviews (demo/data, see demo/fetch.py), each text made unique by a number, with an id and a label: short
(one review), medium (three) and long (eleven), as CSV, JSONL and Parquet. Every measurement is a process of its own:

1. plan: read, check, hash, spool, find duplicates; then create: the file with texts, labels, checksums and reserved
   space, and fsync. Beside it the same job in the usual ways: pandas.read_csv or pyarrow's CSV reader, SHA-1 of each
   text, duplicates.
2. An extract from the start of the process to the first batch of vectors, the model's load included.
3. The command again on the complete cache.
4. A whole extract of --many rows whose encoder is a stub, in a memory control group of 2 GB, page cache included; then
   the same with one row more, which copies all vectors but one.

Memory is the peak of RssAnon: what cannot be written back. Maps of files and the page cache can go at any time.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

REVIEWS, MODEL = ROOT / "demo" / "data" / "reviews-all.csv", ROOT / "demo" / "data" / "minilm"
PIECES = {"short": 1, "medium": 3, "long": 11}
LIMIT = 2 * 10**9
DIM = 384


# The tables.


def make_rows(rows: int, pieces: int) -> Iterator[tuple[str, str, str]]:
    """(id, text, label); the same ones every time."""
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        reviews = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    for i in range(rows):
        picked = [reviews[(i * 7919 + piece * 104729) % len(reviews)] for piece in range(pieces)]
        yield str(i), f"{' '.join(text for text, _ in picked)} {i}", picked[0][1]


def make_tables(folder: Path, name: str, rows: int, pieces: int, formats: list[str]) -> dict[str, Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["id", "text", "label"]
    schema = pa.schema([(column, pa.string()) for column in names])
    paths = {format: folder / f"{name}.{format}" for format in formats}
    if all(path.exists() for path in paths.values()):
        return paths
    parts = {format: path.with_name(f".{path.name}") for format, path in paths.items()}
    files = {
        format: path.open("w", newline="", encoding="utf-8") for format, path in parts.items() if format != "parquet"
    }
    parquet = pq.ParquetWriter(parts["parquet"], schema) if "parquet" in parts else None
    if "csv" in files:
        csv.writer(files["csv"]).writerow(names)
    made = make_rows(rows, pieces)
    while table := [row for _, row in zip(range(50_000), made, strict=False)]:
        if "csv" in files:
            csv.writer(files["csv"]).writerows(table)
        if "jsonl" in files:
            lines = (json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in table)
            files["jsonl"].write("".join(f"{line}\n" for line in lines))
        if parquet:
            parquet.write_table(pa.table(dict(zip(names, map(list, zip(*table, strict=True)), strict=True)), schema))
    for file in [*files.values(), *([parquet] if parquet else [])]:
        file.close()
    for format, part in parts.items():
        part.replace(paths[format])
    return paths


# What the children do; each prints a JSON object.


def plan(path: Path, target: Path) -> dict[str, Any]:
    from embedcache.cache.create import create, make_contents
    from embedcache.cache.strings import first_rows
    from embedcache.extraction.read_input import collect
    from embedcache.tables.rows import Columns, read_rows

    columns = Columns(labels=("label",), id="id")
    clock, begun = time.process_time(), time.perf_counter()
    table = collect(read_rows([path], columns), columns, target.parent)
    first_rows(table.hashes)
    planned = time.perf_counter()
    encoder = {"source": "", "identity": {}, "store": "float16"}
    widths = {("cls", -1): DIM}
    contents = make_contents(table.hashes, table.texts, table.labels, table.columns, encoder, widths, "id")
    create(target, contents)
    seconds = {"plan": planned - begun, "create": time.perf_counter() - planned}
    rows = len(table.hashes)
    target.unlink()
    return {
        "rows": rows,
        "text_bytes": len(table.texts[0]),
        "seconds": seconds,
        "cpu_seconds": time.process_time() - clock,
        "rows_per_second": rows / seconds["plan"],
    }


def pandas_sha1(path: Path, _: Path) -> dict[str, Any]:
    import pandas as pd

    begun = time.perf_counter()
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["hash"] = [hashlib.sha1(text.encode()).digest() for text in table["text"]]
    first = ~table["hash"].duplicated()
    seconds = time.perf_counter() - begun
    return {"rows": int(first.sum()), "seconds": seconds, "rows_per_second": len(table) / seconds}


def pyarrow_sha1(path: Path, _: Path) -> dict[str, Any]:
    from pyarrow import csv as arrow_csv

    begun = time.perf_counter()
    options = arrow_csv.ParseOptions(newlines_in_values=True)
    texts = arrow_csv.read_csv(path, parse_options=options).column("text").to_pylist()
    first: dict[bytes, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(hashlib.sha1(text.encode()).digest(), row)
    seconds = time.perf_counter() - begun
    return {"rows": len(first), "seconds": seconds, "rows_per_second": len(texts) / seconds}


def first_vector(path: Path, target: Path) -> dict[str, Any]:
    """Ends the process with the first call of progress; the parent takes the time."""
    from embedcache.extraction.job import extract

    def stop(*_: int) -> None:
        target.unlink()
        print(json.dumps({"cpu_seconds": time.process_time()}), flush=True)
        os._exit(0)

    extract(path, target, model=MODEL, id="id", progress=stop)
    raise AssertionError("nothing was encoded")


def with_stub(path: Path, target: Path) -> dict[str, Any]:
    """A whole extract; instead of the encoder's vectors random ones, the same for the same text."""
    import numpy as np

    from embedcache.encoder import Encoder, identify
    from embedcache.extraction.job import extract

    bank = np.random.default_rng(0).standard_normal((4096, DIM), np.float32)

    class Tokens:
        def __init__(self, texts: list[str]) -> None:
            self.lengths = np.fromiter(map(len, texts), np.int64, len(texts)) // 4 + 2
            self.truncated = self.lengths > 250

    class Stub:
        device, dim, invariant, kernel, threads = "cpu", DIM, True, "plain", 1
        prescribed, sees_padding = None, False

        def __init__(self, source: str, **settings: Any) -> None:
            self.identity = identify(source, **{name: one for name, one in settings.items() if name != "model"})[0]

        def width(self, output: Any) -> int:
            return DIM

        def tokenize(self, texts: list[str]) -> Tokens:
            return Tokens(texts)

        def encode_tokens(self, tokens: Tokens, outputs: Any, *, tell: Callable[..., None], **_: Any) -> Any:
            tell(np.arange(len(tokens.lengths)))
            return [bank[tokens.lengths % len(bank)] for _ in outputs]

    Encoder.load = staticmethod(Stub)  # type: ignore[assignment, method-assign]
    clock = time.process_time()
    report = extract(path, target, model=MODEL, id="id")
    return {
        "rows": report.rows,
        "encoded": report.encoded,
        "seconds": report.seconds,
        "cpu_seconds": time.process_time() - clock,
        "rows_per_second": report.rows / report.seconds,
    }


CHILDREN = {work.__name__: work for work in (plan, pandas_sha1, pyarrow_sha1, first_vector, with_stub)}


# The parent.


def own_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * sum(int(fields.get(name, "0").split()[0]) for name in ("RssAnon", "RssShmem"))


def watched(command: list[str], enter: list[str] | None = None) -> tuple[str, dict[str, Any]]:
    """stdout of a process; its seconds, and the peak of its own memory in bytes, looked at a hundred times a second."""
    begun = time.perf_counter()
    process = subprocess.Popen([*(enter or []), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, own_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{command}: exit {process.returncode}: {err}")
    return out, {"process_seconds": seconds, "own_memory_bytes": peak}


def child(work: str, path: Path, target: Path, enter: list[str] | None = None) -> dict[str, Any]:
    out, costs = watched(
        [sys.executable, "-m", "benchmarks.extraction.planning", "--child", work, str(path), str(target)], enter
    )
    result = json.loads(out) | costs
    rate = f"{result['rows_per_second']:,.0f} rows/s, " if "rows_per_second" in result else ""
    print(
        f"{work} {path.name}: {rate}{costs['process_seconds']:.1f} s, {costs['own_memory_bytes'] / 1e6:.0f} MB",
        flush=True,
    )
    return result


def rerun(path: Path, target: Path) -> dict[str, Any]:
    """The command on a complete cache, which the stub made."""
    child("with_stub", path, target)
    arguments = ["extract", str(path), "-o", str(target), "--model", str(MODEL), "--id", "id", "--json"]
    out, costs = watched([sys.executable, "-m", "embedcache", *arguments])
    assert json.loads(out)["encoded"] == 0
    print(f"re-run {path.name}: {costs['process_seconds']:.1f} s", flush=True)
    target.unlink()
    return costs


def limited(path: Path, target: Path) -> dict[str, Any]:
    """with_stub, all memory of which, page cache included, is held to LIMIT by the kernel."""
    from benchmarks.heads.memory import control_group

    with control_group(LIMIT) as procs:
        if procs is None:
            return child("with_stub", path, target) | {"limit_bytes": None}
        enter = ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh"]
        return child("with_stub", path, target, enter) | {"limit_bytes": LIMIT}


def usual_rows(folder: Path, rows: int) -> dict[str, Any]:
    report: dict[str, Any] = {"plan": {}, "first_vector": {}}
    for length, pieces in PIECES.items():
        paths = make_tables(folder, f"{length}-{rows}", rows, pieces, ["csv", "jsonl", "parquet"])
        found = {format: child("plan", path, folder / "c.h5") for format, path in paths.items()}
        found |= {work: child(work, paths["csv"], folder / "c.h5") for work in ("pandas_sha1", "pyarrow_sha1")}
        report["plan"][length] = found
        if length != "long":
            report["first_vector"][length] = child("first_vector", paths["csv"], folder / "c.h5")
        if length == "medium":
            report["rerun"] = rerun(paths["csv"], folder / "c.h5")
    return report


def many_rows(folder: Path, rows: int) -> dict[str, Any]:
    paths = make_tables(folder, f"many-{rows}", rows, 1, ["csv", "parquet"])
    report: dict[str, Any] = {format: {"plan": child("plan", path, folder / "c.h5")} for format, path in paths.items()}
    report["csv"]["extract"] = limited(paths["csv"], folder / "c.h5")
    more = folder / "more.csv"
    shutil.copy(paths["csv"], more)
    with more.open("a", encoding="utf-8") as file:
        file.write("new,one more text,fresh\r\n")
    report["csv"]["extract_with_one_row_more"] = limited(more, folder / "c.h5")
    return report


def circumstances() -> dict[str, Any]:
    from benchmarks.machine import machine

    scheduling = {os.SCHED_OTHER: "normal", os.SCHED_RR: "round robin"}[os.sched_getscheduler(0)]
    return machine("numpy", "pyarrow", "pandas", "h5py") | {
        "load_average": os.getloadavg()[0],
        "scheduling": scheduling,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for tables and caches: 20 GB; by default a temporary one")
    parser.add_argument("--rows", type=int, default=1_000_000, help="0 keeps what the JSON holds")
    parser.add_argument("--many", type=int, default=10_000_000, help="0 keeps what the JSON holds")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "planning.json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, path, target = options.child
        print(json.dumps(CHILDREN[work](Path(path), Path(target))))
        return
    report = json.loads(options.json.read_text()) if options.json.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for part, work, rows in (("usual", usual_rows, options.rows), ("many", many_rows, options.many)):
            if rows:
                report[part] = {"machine": circumstances(), **work(folder, rows)}
                report[part]["machine"]["load_average_at_end"] = os.getloadavg()[0]
                (folder / "c.h5").unlink(missing_ok=True)
                options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
