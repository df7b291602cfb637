"""What measure.py measures with: the data, and how a command ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


class Place:
    """A folder with 200 reviews, their cache and a run, made by the version that is measured."""

    def __init__(self, folder: Path, caches: Path) -> None:
        from tests.conftest import make_reviews, write_csv, write_tiny_bert

        self.folder, self.caches = folder, caches
        self.model, self.table = folder / "bert", folder / "reviews.csv"
        self.cache, self.run, self.emoji = folder / "reviews.h5", folder / "run", folder / "emoji.h5"
        self.model.mkdir()
        write_tiny_bert(self.model)
        reviews = [(text, label, f"film {i // 5}") for i, (text, label) in enumerate(make_reviews(200))]
        write_csv(self.table, reviews, ("text", "label", "film"))
        self.ok("extract", self.table, "-o", self.cache, "--model", self.model, "--keep", "film")
        emoji = write_csv(folder / "emoji.csv", [(f"un été \U0001f600 {i}", "ab"[i % 2]) for i in range(9)])
        self.ok("extract", emoji, "-o", self.emoji, "--model", self.model)
        self.ok("train-head", self.cache, "-o", self.run, "--hidden", "8", "--lr", "1e-2", "--epochs", "3")

    def ec(self, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "embedcache", *map(str, arguments)]
        environment = {**os.environ, **more.pop("env", {})}
        options = {"capture_output": True, "timeout": 120, "cwd": self.folder, "check": False} | more
        return subprocess.run(command, env=environment, encoding="utf-8", errors="replace", **options)

    def ok(self, *arguments: object) -> str:
        done = self.ec(*arguments)
        if done.returncode:
            sys.exit(f"embedcache {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def json(self, *arguments: object) -> Any:
        return json.loads(self.ok(*arguments, "--json"))


def ended(done: subprocess.CompletedProcess[str]) -> str:
    """How a command ended, in a word."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    if done.returncode == 0:
        return "done"
    said = done.stderr.strip().splitlines()
    if "Traceback" in done.stderr or "(unexpected:" in done.stderr:
        return "a Python error"
    return "refused in one line" if said and said[-1].startswith("Error: ") else f"exit {done.returncode}"
