"""The attacks and odd environments of measure.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.trials.place import Place, ended


def long_training(cache: Path, run: Path) -> subprocess.Popen[str]:
    """Minutes of it, in a process that Ctrl-C ends."""
    command = [sys.executable, "-m", "embedcache", "train-head", str(cache), "-o", str(run), "--epochs", "20000"]
    command += ["--hidden", "512", "--seed", ",".join(map(str, range(200)))]

    def listen() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(command, **piped(run.parent), preexec_fn=listen)


def piped(folder: Path) -> dict[str, Any]:
    """How to start a command whose error lines are read; in ``folder``, for Python imports from where it is started."""
    return {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True, "cwd": folder}


def interrupted(at: Place) -> dict[str, Any]:
    """Item 20: the exit status after Ctrl-C in a long training."""
    with long_training(at.cache, at.folder / "long") as process:
        time.sleep(8)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    return {"exit status": process.returncode}


def cut_short(at: Place) -> dict[str, Any]:
    """Item 27: the cache is cut short by another program while train-head reads it."""
    cache = at.folder / "cut.h5"
    shutil.copy(at.cache, cache)
    with long_training(cache, at.folder / "cut-run") as process:
        time.sleep(8)
        os.truncate(cache, 4096)
        try:
            _, said = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return {"ended": "not within 60 s"}
    done = subprocess.CompletedProcess([""], process.returncode, "", said)
    return {"ended": ended(done), "lines": len(said.splitlines())}


def three_at_once(at: Place) -> dict[str, Any]:
    """Item 21: three trainings into one run, five rounds."""
    found: list[str] = []
    for _ in range(5):
        run = at.folder / "raced"
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "embedcache", "train-head", str(at.cache), "-o", str(run), "--hidden", "4"]
        three = [subprocess.Popen(command, **piped(at.folder)) for _ in "123"]
        for one in three:
            _, said = one.communicate(timeout=120)
            done = subprocess.CompletedProcess([""], one.returncode, "", said)
            found.append("its folder was gone" if "No such file or directory" in said else ended(done))
    return {end: found.count(end) for end in sorted(set(found))}


def hostile(at: Place) -> dict[str, Any]:
    """Item 22: manipulated runs given to predict; how often each end came."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    def deep(info: dict[str, Any]) -> None:
        info["classes"] = "DEEP"

    def put(*path: Any) -> Callable[[dict[str, Any]], None]:
        *way, last, value = path

        def change(info: dict[str, Any]) -> None:
            for key in way:
                info = info[key]
            info[last] = value

        return change

    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "100,000 deep": deep,
        "nested classes": put("classes", [["negative"], ["positive"]]),
        "a lone surrogate": put("classes", ["\ud800", "positive"]),
        "dtype U9": put("dtype", "U9"),
        "dtype object": put("dtype", "object"),
        "dtype int8": put("dtype", "int8"),
        "a dtype that NumPy interprets": put("dtype", "2f4,f8"),
        "layer '1'": put("layer", "1"),
        "layer 1.5": put("layer", 1.5),
        "temperature 'hot'": put("best", "temperature", "hot"),
        "evaluation a list": put("evaluation", []),
    }
    found: dict[str, str] = {}
    for name, change in changes.items():
        run = at.folder / "hostile"
        shutil.copytree(at.run, run, dirs_exist_ok=True)
        info = json.loads((run / "run.json").read_text())
        change(info)
        nested = "[" * 100_000 + "]" * 100_000
        (run / "run.json").write_text(json.dumps(info).replace('"DEEP"', nested))
        found[name] = ended(at.ec("predict", run, "a good film", "--calibrated"))
    for name, value in {"weights NaN": np.nan, "weights inf": np.inf, "weights 1e38": 1e38}.items():
        run = at.folder / "hostile"
        shutil.copytree(at.run, run, dirs_exist_ok=True)
        weights = load_file(run / "best.safetensors")
        save_file({key: np.full_like(one, value) for key, one in weights.items()}, run / "best.safetensors")
        info = json.loads((run / "run.json").read_text())
        info["files"]["best.safetensors"] = hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()
        (run / "run.json").write_text(json.dumps(info))
        found[name] = ended(at.ec("predict", run, "a good film", "--json"))
    counts = {end: list(found.values()).count(end) for end in sorted(set(found.values()))}
    return {"manipulations": len(found), **counts, "each": found}


def modes(at: Place) -> dict[str, Any]:
    """Item 24: the modes of what is written, under two umasks."""
    found: dict[str, list[str]] = {}
    for umask in (0o077, 0o022):
        files = {
            "index": (at.folder / f"{umask}.index", ["index", at.cache, "-o"]),
            "audit": (at.folder / f"{umask}.csv", ["audit", at.cache, "-o"]),
            "predict": (at.folder / f"{umask}-p.csv", ["predict", at.run, "--input", at.table, "-o"]),
            "report": (at.folder / f"{umask}.html", ["report", at.run, "-o"]),
        }
        for name, (path, command) in files.items():
            at.ec(*command, path, umask=umask)
            mode = f"{path.stat().st_mode & 0o777:04o}" if path.exists() else "nothing written"
            found.setdefault(f"umask {umask:04o}", []).append(f"{name} {mode}")
    return found


def environments(at: Place) -> dict[str, Any]:
    """Item 25: the same commands where the environment is odd."""
    c = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    many = at.folder / "many.h5"
    cases: dict[str, tuple[dict[str, str], list[object]]] = {
        "LC_ALL=C, predict of a text with accents": (c, ["predict", at.run, "un été magnifique"]),
        "PYTHONIOENCODING=euc_jp, search that finds an emoji": (
            {"PYTHONIOENCODING": "euc_jp"}, ["search", at.emoji, "--row", "1"]
        ),
        "OMP_NUM_THREADS=5000, extract": (
            {"OMP_NUM_THREADS": "5000"}, ["extract", at.table, "-o", many, "--model", at.model]
        ),
        "OMP_NUM_THREADS=5000, search": ({"OMP_NUM_THREADS": "5000"}, ["search", at.cache, "a good film"]),
        "PYTHONOPTIMIZE=2, export": (
            {"PYTHONOPTIMIZE": "2"}, ["export", at.run, "--to", "torch", "-o", at.folder / "exported"]
        ),
    }  # fmt: skip
    found = {}
    for name, (env, command) in cases.items():
        try:
            found[name] = ended(at.ec(*command, env=env, timeout=90))
        except subprocess.TimeoutExpired:
            found[name] = "not ended after 90 s"
    return found
