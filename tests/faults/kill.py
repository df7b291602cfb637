"""Kill extract, many times, and see that nothing is ever lost.

    python tests/faults/kill.py MODEL FOLDER --random 180 --commands 20 [--every 1] [--rows 4000] [--seed 0]
        [--tokens 1] [--store int8]

Four scenes take turns: a first extract, an append with reordering (rows new and old mixed in every block), a repair of
damaged blocks, and other labels for the same texts, where nothing is encoded and a new file takes the old one's place.
Each is killed at moments spread over its whole time, then run to its end, and compared with the undisturbed result to
the bit; after every kill h5py must open what is there. ``--random`` kills hit forks of a warm process, ``--commands``
real command lines. ``--every`` K kills each scene at every K-th change that it makes to the disk, before the change and
in the middle of it. ``--tokens`` K keeps token states in all of these scenes, ``--store`` is how the
vectors are stored. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import h5py
import numpy as np
import torch

from embedcache.cache import open_cache, verify
from embedcache.cache.state_files import StateFiles, index_path, values_path
from embedcache.encoder import Encoder
from embedcache.extraction.job import extract

torch.set_num_threads(1)
WORDS = "film story plot music actor scene good bad great dull love hate never always very slow fine mess".split()
OPTIONS: dict[str, Any] = {"pooling": ("cls", "mean"), "device": "cpu", "batch_tokens": 1024}
COMMAND = ["--pooling", "cls,mean", "--device", "cpu", "--batch-tokens", "1024"]


@dataclass
class Scene:
    """``start``: the cache that is there before, None for none. ``expected``: the bytes of the undisturbed result."""

    name: str
    table: Path
    start: Path | None
    expected: dict[str, bytes]
    seconds: float


def write_table(path: Path, texts: list[str], labels: int = 7) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, str(len(text) % labels)) for text in texts)])
    return path


class Killer:
    def __init__(self, model: str, folder: Path, rows: int, seed: int, tokens: int, store: str) -> None:
        asked: dict[str, Any] = {"store": store, **({"tokens": tokens} if tokens else {})}
        self.options = OPTIONS | asked
        self.more = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
        self.model, self.folder, self.cache = model, folder, folder / "cache.h5"
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        invariant = getattr(Encoder.load(model, device="cpu"), "invariant", False)  # imports what a load imports
        rng = random.Random(0)
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) + f" {i}" for i in range(rows)]
        texts[rows // 2 :: 50] = texts[: len(texts[rows // 2 :: 50])]  # duplicates
        changed = texts[rows // 10 :] + [f"{text} again" for text in texts[: rows // 10]]
        rng.shuffle(changed)
        base, damaged = folder / "base.h5", folder / "damaged.h5"
        table = write_table(folder / "base.csv", texts)
        self.scenes = [self.scene("first", table, None)]
        copy(self.cache, base)
        copy(base, damaged)
        damage(damaged)
        self.scenes += [
            self.scene("append", write_table(folder / "changed.csv", changed), base),
            self.scene("repair", table, damaged),
            self.scene("relabel", write_table(folder / "relabelled.csv", texts, 5), base),
        ]
        if invariant:  # then vectors do not depend on their batch: an append or repair ends as if nothing had been
            assert self.scenes[2].expected == self.scenes[0].expected
            again = self.scene("append", self.scenes[1].table, None)
            assert self.scenes[1].expected == again.expected
        self.counts["invariant"] = int(invariant)

    def scene(self, name: str, table: Path, start: Path | None) -> Scene:
        self.prepare(start)
        begun = time.perf_counter()
        assert self.forked(table) == 0
        seconds = time.perf_counter() - begun
        return Scene(name, table, start, contents(self.cache), seconds)

    def prepare(self, start: Path | None) -> None:
        for left in [*files_of(self.cache), *self.folder.glob(".*")]:
            left.unlink(missing_ok=True)
        if start:
            copy(start, self.cache)

    def forked(self, table: Path, disturb: Callable[[], None] | None = None, kill_after: float | None = None) -> int:
        """Run extract in a child; returns its status as ``waitpid`` does, the signal's number where it was killed."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if disturb:
                    disturb()
                extract(table, self.cache, model=self.model, **self.options)
                status = 0
            finally:
                os._exit(status)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), f"extract failed: {status}"
        return status

    def command(self, table: Path, kill_after: float | None = None) -> int:
        line = [sys.executable, "-m", "embedcache", "extract", str(table), "-o", str(self.cache), "--model", self.model]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(
            [*line, *COMMAND, *self.more], env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes
        ) as process:
            try:
                _, stderr = process.communicate(timeout=kill_after)
            except subprocess.TimeoutExpired:
                process.kill()
                _, stderr = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), stderr
        return -process.returncode

    def after_kill(self, kind: str) -> None:
        self.counts[kind] += 1
        self.counts["before creation"] += not self.cache.exists()
        for path in (self.cache, self.cache.with_name(".cache.h5.new")):
            if path.exists():
                with h5py.File(path) as file:
                    file["embeddings/cls"][-1], file["text/bytes"][-1]
                with open_cache(path) as cache:
                    self.counts["incomplete"] += not cache.complete
        if index_path(self.cache).exists():
            files = StateFiles(self.cache)
            assert files.sealed and files.whole
            self.counts["states incomplete"] += bool(files.absent.any())

    def resume(self, scene: Scene) -> None:
        assert self.forked(scene.table) == 0
        found = contents(self.cache)
        wrong = [name for name in scene.expected if found[name] != scene.expected[name]]
        assert not wrong, f"{scene.name} after {dict(self.counts)}: {wrong} differ"
        assert verify(self.cache).ok
        assert not list(self.folder.glob(".*")), "something was left behind"
        self.counts["resumed"] += 1
        print(scene.name, dict(self.counts), file=sys.stderr, flush=True)

    def random_moments(self, kills: int) -> None:
        """Moments of kills, of the one that follows a kill too, are spread evenly over each scene's time."""
        turn = 0
        while self.counts["random"] < kills:
            scene = self.scenes[turn % len(self.scenes)]
            self.prepare(scene.start)
            for k in range(1 + turn // len(self.scenes) % 2):
                share = (
                    (turn / len(self.scenes) * 0.618 + self.rng.random() / 4) % 1 if k == 0 else self.rng.random() / 2
                )
                if self.forked(scene.table, kill_after=share * scene.seconds):
                    self.after_kill("random")
                else:  # the machine got faster
                    scene.seconds *= 0.8
            self.resume(scene)
            turn += 1

    def command_lines(self, kills: int) -> None:
        begun, seconds = time.perf_counter(), 0.0
        turn = 0
        while self.counts["commands"] < kills:
            scene = self.scenes[turn % len(self.scenes)]
            self.prepare(scene.start)
            if not seconds:
                self.command(scene.table)
                seconds = time.perf_counter() - begun
                self.prepare(scene.start)
            if self.command(scene.table, kill_after=seconds * (0.3 + 0.7 * self.rng.random())):  # imports come first
                self.after_kill("commands")
            else:
                seconds *= 0.9
            self.resume(scene)
            turn += 1

    def every_change(self, step: int) -> None:
        for scene in self.scenes:
            number = self.rng.randrange(step)
            while True:
                for torn in (False, True):
                    self.prepare(scene.start)
                    status = self.forked(scene.table, lambda at=number, torn=torn: die_at(at, torn))
                    if status:
                        self.after_kill("at a change")
                        self.resume(scene)
                if not status:
                    break
                number += step

    def power_cuts(self, count: int) -> None:
        """Any pages of what was not on the disk yet are lost, whatever their order."""
        scene = self.scenes[0]
        self.prepare(None)
        number = 60
        while self.forked(scene.table, lambda at=number: die_at(at, False)) == 0 or not self.cache.exists():
            self.prepare(None)
            number = self.rng.randrange(20, 60)
        paths = [path for path in files_of(self.cache) if path.exists()]
        before = [np.fromfile(path, np.uint8) for path in paths]
        self.resume(scene)
        after = [np.fromfile(path, np.uint8) for path in paths]
        for _ in range(count):
            for path, old, new in zip(paths, before, after, strict=True):
                random_pages = np.random.default_rng(self.rng.randrange(1 << 30)).random(-(-len(old) // 4096))
                kept = np.repeat(random_pages < self.rng.random(), 4096)
                np.where(kept[: len(old)], new, old).tofile(path)
            self.after_kill("power cuts")
            self.resume(scene)


def die_at(number: int, torn: bool) -> None:
    """Let this process be killed at its change number so and so to the disk, ``torn``: when it is half done."""
    left = number

    def dies(function: Callable[..., Any], half: Callable[..., Any] | None) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if torn and half:
                    half(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return change

    write, replace, unlink, allocate = os.pwrite, Path.replace, Path.unlink, os.posix_fallocate
    dying, texts = dies(write, lambda handle, data, offset: write(handle, data[: len(data) // 2], offset)), 0

    def pwrite(handle: int, data: Any, offset: int) -> int:
        nonlocal texts
        if Path(f"/proc/self/fd/{handle}").readlink().suffix == ".npy" and offset:  # each text's states: some of them
            texts += 1
            if texts % 200:
                return write(handle, data, offset)
        return dying(handle, data, offset)

    os.pwrite = pwrite
    os.posix_fallocate = dies(allocate, lambda handle, offset, size: allocate(handle, offset, size // 2))
    os.fsync = dies(os.fsync, None)
    h5py.File = dies(h5py.File, lambda path, *_, **__: Path(path).write_bytes(b"\x89HDF\r\n\x1a\n"))  # its structure
    Path.replace = dies(replace, replace)  # torn: with nothing of what follows
    Path.unlink = dies(unlink, unlink)


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of every dataset."""
    with open_cache(path) as cache:
        assert cache.complete
        found = {name: cache.array(name).tobytes() for name in cache.layout.datasets}
        if index_path(path).exists():
            assert StateFiles(path).sound().all()
            values, offsets = cache.token_states().take(np.arange(cache.rows))
            found |= {"token states": values.tobytes(), "their offsets": offsets.tobytes()}
        return found | {f"blocks/{name}": cache.checksums(name).tobytes() for name in cache.layout.checked}


def damage(path: Path) -> None:
    """Flip a bit in the vectors of two blocks and in a checksum; the same in two texts' token states."""
    with open_cache(path) as cache:
        row = cache.array("embeddings/cls")[0].nbytes
        vectors = [cache.offset("embeddings/cls") + row * 5]
        last = cache.vector_datasets("embeddings/cls")[-1]  # in int8 the scales
        vectors += [cache.offset(last) + cache.array(last)[0].nbytes * (cache.rows - 5)]
        places = [*vectors, cache.offset("blocks/embeddings/mean") + 16 + 3]
    flip(path, places)
    if index_path(path).exists():
        files = StateFiles(path)
        flip(values_path(path), [4096 + int(files.spans[slot, 0]) * files.about.token_bytes for slot in (9, -9)])
        flip(index_path(path), [files.offset("texts/checksums") + 16 * 30])


def flip(path: Path, places: list[int]) -> None:
    """A bit in each of these bytes."""
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))


def files_of(cache: Path) -> list[Path]:
    """The cache, and the files of its token states."""
    return [cache, index_path(cache), values_path(cache)]


def copy(source: Path, target: Path) -> None:
    """A cache with its token states."""
    for old, new in zip(files_of(source), files_of(target), strict=True):
        if old.exists():
            shutil.copy(old, new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    for name, default in (("random", 0), ("commands", 0), ("every", 0), ("power-cuts", 0), ("rows", 4000), ("seed", 0),
                          ("tokens", 0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--store", default="float16")
    options = parser.parse_args()
    killer = Killer(options.model, options.folder, options.rows, options.seed, options.tokens, options.store)
    killer.random_moments(options.random)
    killer.command_lines(options.commands)
    if options.every:
        killer.every_change(options.every)
    if options.power_cuts:
        killer.power_cuts(options.power_cuts)
    print(json.dumps(killer.counts))


if __name__ == "__main__":
    main()
