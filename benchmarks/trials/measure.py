"""What a user and an attacker met, measured with one version of embedcache: the figures of docs/trials.md.

python -m benchmarks.trials.measure -o now.json [--only NAME,NAME]     the version of this checkout
PYTHONSAFEPATH=1 PYTHONPATH=OTHER:$PWD python -m benchmarks.trials.measure -o before.json     another one

Every trial runs the real commands on small data and a tiny encoder, and gives counts or words. Two need MiniLM and the
drug reviews of benchmarks/runs/small_data.py.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.trials.attacks import cut_short, environments, hostile, interrupted, modes, three_at_once
from benchmarks.trials.place import Place, ended

DRUGS = "n600-0"  # a draw of 600 drug reviews
PYTHON_WAYS = """
import copy, json, multiprocessing, pickle, sys, tempfile
import joblib, pandas
import embedcache as ec

def tried(how):
    try:
        how()
    except Exception as error:
        return type(error).__name__
    return "works"

if __name__ == "__main__":
    made = ec.Classifier.load(sys.argv[1])
    frame = pandas.DataFrame({"text": ["good", "bad", "dull"], "year": [1, 2, 3]})
    def dump():
        with tempfile.NamedTemporaryFile() as file:
            joblib.dump(made, file.name), joblib.load(file.name)
    def spawn():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.map(made.predict, [["good"]])
    ways = {
        "pickle": lambda: pickle.loads(pickle.dumps(made)), "deepcopy": lambda: copy.deepcopy(made),
        "joblib": dump, "spawn": spawn, "predict a Series": lambda: made.predict(frame["text"]),
    }
    found = {name: tried(how) for name, how in ways.items()}
    try:
        answer = len(made.predict(frame))
        found["predict a DataFrame of 3 rows, 2 columns"] = f"{answer} labels"
    except Exception as error:
        found["predict a DataFrame of 3 rows, 2 columns"] = f"refused: {error}"
    print(json.dumps(found))
"""


def places_of_output(at: Place) -> dict[str, Any]:
    """Items 1: a link to standard output, a symlink and a FIFO that -o names."""
    out, target, link, fifo = (at.folder / name for name in ("stdout", "target.csv", "link.csv", "fifo"))
    out.symlink_to("/proc/self/fd/1")
    link.symlink_to(target)
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    predict = ["predict", at.run, "--input", at.table, "-o"]
    for place in (out, link, fifo):
        at.ec(*predict, place)
    reader.join(2)
    return {
        "a link to /dev/stdout stays": out.is_symlink(),
        "a symlink stays": link.is_symlink(),
        "a FIFO stays": fifo.is_fifo(),
        "bytes that its reader got": len("".join(read)),
        "-o - is standard output": at.ec(*predict, "-").stdout.startswith(("text,", "{")),
    }


def formats(at: Place) -> dict[str, Any]:
    """Item 2: what a file holds that predict -o NAME wrote."""
    right = {
        ".csv": lambda data: data.startswith(b"text,"),
        ".tsv": lambda data: b"\t" in data.split(b"\n")[0],
        ".jsonl": lambda data: data.startswith(b"{"),
        ".parquet": lambda data: data.startswith(b"PAR1"),
        ".csv.gz": lambda data: gzip.decompress(data).startswith(b"text,") if data[:2] == b"\x1f\x8b" else False,
    }
    found = {}
    for suffix, test in right.items():
        out = at.folder / f"formats{suffix}"
        done = at.ec("predict", at.run, "--input", at.table, "-o", out)
        found[suffix] = "as it says" if out.exists() and test(out.read_bytes()) else f"something else ({ended(done)})"
    return found


def columns(at: Place) -> dict[str, Any]:
    """Item 3: five columns go in, with a gold label that the run would not give; 4: rows of a cache."""
    table, out = at.folder / "five.csv", at.folder / "five-out.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text", "label", "film", "stars"), ("7", "a dull film", "gold", "x", "3")])
    at.ok("predict", at.run, "--input", table, "-o", out)
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    kept = [name for name in ("id", "text", "label", "film", "stars") if name in row]
    cache = at.ec("predict", at.run, at.cache, "-o", at.folder / "of-cache.csv")
    return {"kept of 5": len(kept), "the gold label": row.get("label"), "predict RUN CACHE": ended(cache)}


def drugs(at: Place) -> Path:
    from benchmarks.runs import small_data

    return Path(small_data.make_cache("drugs", at.caches))


def probes(at: Place) -> dict[str, Any]:
    """Item 10: ten linear probes at lr 1e-4, and a run without any option, on 600 drug reviews in three classes."""
    cache, run = drugs(at), at.folder / "probes"
    sweep = ["--hidden", "0", "--lr", "1e-4", "--seed", "0,1,2,3,4,5,6,7,8,9", "--epochs", "5"]
    at.ok("train-head", cache, "-o", run, "--label", DRUGS, "--pooling", "mean", *sweep)
    with (run / "leaderboard.csv").open(newline="") as file:
        scores = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    baselines = json.loads((run / "run.json").read_text())["baselines"]
    plain = at.json("train-head", cache, "-o", at.folder / "plain", "--label", DRUGS, "--pooling", "mean")
    return {
        "validation accuracy of 10 probes, 5 epochs": [min(scores), max(scores)],
        "majority": baselines["majority"]["val_accuracy"],
        "default run, test accuracy": plain["best"]["test_accuracy"],
        "its baselines": {name: one.get("test_accuracy") for name, one in plain["baselines"].items()},
    }


def folds(at: Place) -> dict[str, Any]:
    """Item 8: the TF-IDF baseline with --folds on the same reviews."""
    options = ["--label", DRUGS, "--pooling", "mean", "--folds", "5", "--hidden", "0", "--lr", "1e-3"]
    found = at.json("train-head", drugs(at), "-o", at.folder / "folds", *options)["baselines"]
    wanted = ("test_accuracy", "test_macro_f1", "C", "c")
    return {name: {key: one[key] for key in wanted if key in one} for name, one in found.items()}


def audit(at: Place) -> dict[str, Any]:
    """Item 12: what audit says of 600 drug reviews in unequal classes, none of which was changed."""
    cache, out = drugs(at), at.folder / "audit.csv"
    found = at.json("audit", cache, "--label", DRUGS, "--pooling", "mean", "-o", out)
    with out.open(newline="") as file:
        listed = [row["label"] for row in csv.DictReader(file) if row["issue"] == "label"]
    errors = found.get("errors") or {}
    estimates = {one["label"]: one["estimate"] for one in errors.get("per_class", ())}
    return {
        "rows judged": found["judged"],
        "listed": len(listed),
        "listed of the small class": listed.count("neutral"),
        **{key: errors.get(key) for key in ("estimate", "interval")},
        "estimate for the small class": estimates.get("neutral"),
    }


def said(at: Place) -> dict[str, Any]:
    """Items 13 and 14: whether extract says a word about unknown tokens, look-alike labels and a column that goes."""
    strange, alike = at.folder / "strange.csv", at.folder / "twins.csv"
    with strange.open("w", encoding="utf-8") as file:
        file.write("text,label\n" + "".join(f"映画は素晴らしかった{i},{'ab'[i % 2]}\n" for i in range(20)))
    with alike.open("w") as file:
        file.write("text,label\n" + "".join(f"text {i},{('pos', 'pos ', 'neg')[i % 3]}\n" for i in range(30)))
    cache = at.folder / "said.h5"
    unknown = at.ec("extract", strange, "-o", cache, "--model", at.model)
    twins = at.ec("extract", alike, "-o", at.folder / "twins.h5", "--model", at.model)
    kept = at.folder / "kept.h5"
    shutil.copy(at.cache, kept)
    without = at.ec("extract", at.table, "-o", kept, "--model", at.model)
    import h5py

    with h5py.File(kept) as file:
        stays = "film" in file.get("columns", {})
    word = {name: done.stdout + done.stderr for name, done in (("u", unknown), ("t", twins), ("w", without))}
    return {
        "unknown tokens are said": "unknown" in word["u"] or "[UNK]" in word["u"],
        "pos and 'pos ' are said": "alike" in word["t"] or "'pos '" in word["t"],
        "a kept column that is not named again": "stays"
        if stays
        else "said"
        if "film" in word["w"]
        else "gone silently",
    }


def python(at: Place) -> dict[str, Any]:
    """Item 15."""
    script = at.folder / "ways.py"
    script.write_text(PYTHON_WAYS)
    command = [sys.executable, str(script), str(at.run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=at.folder, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-300:]}


def tables(at: Place) -> dict[str, Any]:
    """Item 18: tables of other kinds, three rows each."""
    import pandas

    rows = [("a good film", "good"), ("a dull film", "bad"), ("a fine film", "good")]
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    text = "text{0}label\n" + "".join(f"{a}{{0}}{b}\n" for a, b in rows)
    files: dict[str, Callable[[Path], object]] = {
        "semicolons.csv": lambda path: path.write_text(text.format(";")),
        "tabs.csv": lambda path: path.write_text(text.format("\t")),
        "utf16.csv": lambda path: path.write_bytes(text.format(",").encode("utf-16")),
        "array.json": lambda path: frame.to_json(path, orient="records"),
        "frame.feather": frame.to_feather,
        "frame.arrow": frame.to_feather,
        "book.xlsx": lambda path: frame.to_excel(path, index=False),
    }
    found = {}
    for name, write in files.items():
        write(at.folder / name)
        found[name] = ended(at.ec("extract", at.folder / name, "-o", at.folder / f"{name}.h5", "--model", at.model))
    return found


def another_index(at: Place) -> dict[str, Any]:
    """Item 19: search in one cache with the index of another."""
    other = at.folder / "other.h5"
    head = at.folder / "head.csv"
    head.write_text("".join(at.table.read_text().splitlines(keepends=True)[:100]))
    at.ok("extract", head, "-o", other, "--model", at.model)
    at.ok("index", other, "-o", at.folder / "other.index")
    said = at.ec("search", at.cache, "--row", "1", "--index", at.folder / "other.index").stderr
    return {"says": " ".join(said.replace(str(at.folder), "FOLDER").split())[:300]}


TRIALS: dict[str, Callable[[Place], dict[str, Any]]] = {
    trial.__name__: trial
    for trial in (
        places_of_output, formats, columns, folds, probes, audit, said, python, tables, another_index, interrupted,
        cut_short, three_at_once,
        hostile, modes, environments,
    )
}  # fmt: skip


def version() -> str:
    """The commit of the package that is measured."""
    import embedcache

    command = ["git", "-C", str(Path(embedcache.__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TRIALS))
    parser.add_argument("--caches", type=Path, help="keeps the cache of drug reviews between calls")
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    results = {"version": version(), **results}
    with tempfile.TemporaryDirectory() as folder:
        at = Place(Path(folder), options.caches or Path(folder))
        for name in options.only.split(","):
            start = time.perf_counter()
            results[name] = TRIALS[name](at)
            print(f"{name} ({time.perf_counter() - start:.0f} s): {json.dumps(results[name])[:400]}", flush=True)
            options.output.write_text(json.dumps(results, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
