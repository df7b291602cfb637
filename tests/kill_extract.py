"""Kill extract at random moments, many times, and see that nothing is ever lost.

    python tests/kill_extract.py MODEL FOLDER KILLS ROWS

One warm process imports everything and forks a child for each run, so that a kill costs no import. Three scenes take
turns: a first extract, an append with reordering (rows new and old mixed in every block), and a repair of damaged
blocks. Each is killed once or twice at moments spread over its whole time, then run to its end, and compared with the
undisturbed result to the bit. Prints one JSON document.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import h5py
import numpy as np
import torch

from embedcache.cache import open_cache, verify
from embedcache.encoder import Encoder
from embedcache.extract import extract

torch.set_num_threads(1)
WORDS = "film story plot music actor scene good bad great dull love hate never always very slow fine mess".split()
OPTIONS = {"pooling": ("cls", "mean"), "device": "cpu", "batch_tokens": 1024}


def write_tables(folder: Path, rows: int) -> tuple[Path, Path]:
    """A table, and one with 10% of its rows gone, 10% new ones, all shuffled."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) + f" {i}" for i in range(rows)]
    texts[rows // 2 :: 50] = texts[: len(texts[rows // 2 :: 50])]  # duplicates
    changed = texts[rows // 10 :] + [f"{text} again" for text in texts[: rows // 10]]
    rng.shuffle(changed)
    for name, lines in (("base", texts), ("changed", changed)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *((text, str(len(text) % 7)) for text in lines)])
    return folder / "base.csv", folder / "changed.csv"


def forked(table: Path, cache: Path, model: str, kill_after: float | None = None) -> tuple[float, bool]:
    """Run extract in a child, killed after so many seconds; returns the seconds it took and whether the kill hit."""
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            extract(table, cache, model=model, **OPTIONS)
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or (kill_after is not None and status == signal.SIGKILL), f"extract failed: {status}"
    return time.perf_counter() - begun, status == signal.SIGKILL


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of every dataset."""
    with open_cache(path) as cache:
        assert cache.complete
        found = {name: cache.array(name).tobytes() for name in cache.layout.datasets}
        return found | {f"blocks/{name}": cache.checksums(name).tobytes() for name in cache.layout.checked}


def damage(path: Path) -> None:
    """Flip a bit in the vectors of two blocks and in a checksum."""
    with open_cache(path) as cache:
        vectors = cache.offset("embeddings/cls") + cache.dim * 2 * np.array([5, cache.rows - 5])
        places = [*vectors.tolist(), cache.offset("blocks/embeddings/mean") + 16 + 3]
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))


def main(model: str, folder: Path, kills: int, rows: int) -> dict[str, int]:
    Encoder.load(model, device="cpu")  # imports what a load imports
    base, changed = write_tables(folder, rows)
    cache = folder / "cache.h5"
    rng = random.Random(kills)
    seconds, expected = {}, {}
    seconds["first"] = forked(base, cache, model)[0]
    shutil.copy(cache, folder / "base.h5")
    expected["first"] = contents(cache)
    seconds["append"] = forked(changed, cache, model)[0]
    expected["append"] = contents(cache)
    shutil.copy(folder / "base.h5", cache)
    damage(cache)
    shutil.copy(cache, folder / "damaged.h5")
    seconds["repair"] = forked(base, cache, model)[0]
    expected["repair"] = contents(cache)  # may differ in last bits: a repaired block makes other batches
    start = {"append": folder / "base.h5", "repair": folder / "damaged.h5"}
    done, before_creation, incomplete, rounds = 0, 0, 0, 0
    while done < kills:
        scene = ("first", "append", "first", "repair")[rounds % 4]
        cache.unlink(missing_ok=True)
        if scene in start:
            shutil.copy(start[scene], cache)
        table = changed if scene == "append" else base
        for k in range(1 + rounds % 2):
            share = (rounds / 4 * 0.618 + rng.random() / 4) % 1 if k == 0 else rng.random() / 2
            _, hit = forked(table, cache, model, kill_after=share * seconds[scene])
            if not hit:  # the machine got faster
                seconds[scene] *= 0.8
            elif cache.exists():
                with h5py.File(cache) as file:
                    file["embeddings/cls"][-1]
                incomplete += not open_cache(cache).complete
            before_creation += hit and not cache.exists()
            done += hit
        forked(table, cache, model)
        found = contents(cache)
        wrong = [name for name in expected[scene] if found[name] != expected[scene][name]]
        assert not wrong, f"{scene} after {done} kills: {wrong} differ"
        assert verify(cache).ok
        assert not list(folder.glob(".*")), "something was left behind"
        rounds += 1
    return {"kills": done, "before_creation": before_creation, "incomplete": incomplete, "rounds": rounds}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
