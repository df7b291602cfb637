"""Does finetune train from a file of token states that is many times larger than the memory it may have?

python -m benchmarks.finetune.memory [--gigabytes 10] [--limit 1.5] [--pooling cls,mean] [--folder DIR]

The states are MiniLM's own, of a few hundred long passages, each under many texts: what tells these texts apart stands
behind the encoder's 250 tokens, so every text's states are what extract would make of it, without hours of encoding.
The command runs in a memory control group, in which the system's copies of file pages count too, and without swap (this
takes Linux, and root). The row's label is that of its passage, so scores mean nothing here.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.data import model_folder, texts
from benchmarks.machine import RESULTS, machine
from embedcache.cache import open_cache
from embedcache.cache.state_files import StatesAbout, values_path
from embedcache.cache.state_writer import StateWriter, make_states, place_texts
from embedcache.extraction.job import extract
from embedcache.runs.job import train_head
from tests.conftest import make_cache
from tests.faults.conftest import control_group

PASSAGES, AT_A_TIME = 256, 4096
LABELS = ("even", "odd")


def small_cache(folder: Path, model: Path) -> Path:
    """The passages themselves, as extract makes them."""
    table, cache = folder / "passages.csv", folder / "passages.h5"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        long = [text for text in texts("long") if len(text.split()) > 250][:PASSAGES]
        rows.writerows((text, LABELS[i % 2]) for i, text in enumerate(long))
    extract(table, cache, model=model, pooling=("cls", "mean"), max_length=250, tokens=1, dtype="float32")
    return cache


def large_cache(small: Path, gigabytes: float) -> Path:
    """Many texts that begin as the passages do, with their vectors and states."""
    cache = small.with_name("many.h5")
    with open_cache(small) as opened:
        states = opened.token_states()
        known = [states.take([row])[0] for row in range(opened.rows)]
        tokens = {len(one) for one in known}
        assert tokens == {250}, "every passage is longer than what the encoder reads"
        rows = int(gigabytes * 1e9 / (250 * states.dim * 2))
        which = np.arange(rows) % opened.rows
        passages = list(opened.texts)
        vectors = {name: opened.embeddings(name)[which] for name in ("cls", "mean")}
        many = [f"{passages[i]} {number}" for number, i in enumerate(which)]
        make_cache(cache, many, vectors, {"label": [LABELS[i % 2] for i in which]}, encoder=opened.encoder)
        about = StatesAbout(opened.encoder, states.layers, states.layer, states.dim)
    with open_cache(cache) as opened:
        lengths = np.full(rows, 250)
        begins = place_texts(lengths, np.arange(rows), 0, about.token_bytes)
        make_states(cache, about, opened.hashes, np.stack([begins, lengths], axis=1))
    with StateWriter(cache) as writer:
        for start in range(0, rows, AT_A_TIME):
            some = np.arange(start, min(start + AT_A_TIME, rows))
            writer.commit(some, [writer.put(int(row), known[which[row]]) for row in some])
        writer.sync()
    return cache


def drop_pages(path: Path) -> None:
    """What the system holds of a file in memory, which would not count in a new group's memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tune(cache: Path, start: Path, pooling: str, limit: int) -> dict[str, Any]:
    """One epoch of the last layer within so many bytes."""
    run = cache.with_name(f"run-{pooling}")
    line = [sys.executable, "-m", "embedcache", "finetune", cache, "-o", run, "--from", start, "--pooling", pooling]
    line += ["--epochs", "1", "--device", "cpu", "--json"]
    begun = time.perf_counter()
    with control_group(limit) as within:
        group = Path(re.findall(r"> (\S+)/cgroup.procs", within[2])[0])
        process = subprocess.Popen([*within, *map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr.decode()[-2000:]
        highest = next(
            int((group / name).read_text()) for name in ("memory.max_usage_in_bytes", "memory.peak")
            if (group / name).exists()
        )  # fmt: skip
    report = json.loads(stdout)
    return {
        "pooling": pooling, "engine": report["engine"], "memory_with_file_pages": highest,
        "train_seconds": report["train_seconds"], "seconds": time.perf_counter() - begun,
        "rows": report["split"]["train"], "test_accuracy": report["best"]["test_accuracy"], "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of token states")
    parser.add_argument("--limit", type=float, default=1.5, help="gigabytes of memory")
    parser.add_argument("--pooling", default="cls,mean")
    parser.add_argument("--folder", type=Path, help="where the files go, and are removed again")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "finetune-memory.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        small = small_cache(Path(scratch), model_folder("minilm", Path(scratch)))
        cache = large_cache(small, options.gigabytes)
        size = values_path(cache).stat().st_size
        print(f"{size:,} bytes of states", flush=True)
        found = []
        for pooling in options.pooling.split(","):
            start = cache.with_name(f"head-{pooling}")
            train_head(cache, start, pooling=pooling, hidden=0, lr=1e-3, epochs=1)
            drop_pages(values_path(cache))
            found.append(tune(cache, start, pooling, int(options.limit * 1e9)))
            print(json.dumps(found[-1]), flush=True)
            document = {
                "machine": machine("torch", "numpy"), "states_bytes": size, "limit_bytes": int(options.limit * 1e9),
                "tokens_a_row": 250, "runs": found,
            }  # fmt: skip
            options.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
