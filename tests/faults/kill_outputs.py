"""Kill predict and search --file, many times: each goes on where it was, and leaves nothing behind in the end.

    python tests/faults/kill_outputs.py RUN CACHE TABLE FOLDER --kills 60 [--seed 0]

RUN is a run of CACHE, TABLE has texts. Each kill hits a fork of a warm process at a random moment of the time that the
rest of the work takes; forks follow one another until one ends by itself. Then the output must be that of undisturbed
work to the byte, with nothing beside it. Prints one JSON document: kills, outputs that were finished, forks that found
saved work, and files that were left when all was done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch

from embedcache.prediction import rows as predict_rows
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.job import predict_file
from embedcache.search import file as searching_file
from embedcache.search.file import search_file

torch.set_num_threads(1)
predict_rows.FILE_ROWS = 64  # many parts of a small table
searching_file.FILE_QUERIES = 64

Work = Callable[[Path, Callable[[str], None]], object]


class Killer:
    """``work(output, tell)`` writes an output in ``folder``."""

    def __init__(self, work: Work, folder: Path, name: str, seed: int) -> None:
        self.work, self.folder, self.output = work, folder, folder / name
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        folder.mkdir()
        started = time.perf_counter()
        assert self.forked(None) == 0
        self.seconds = time.perf_counter() - started
        self.expected = self.output.read_bytes()
        self.output.unlink()

    def kill(self, times: int) -> dict[str, int]:
        while self.counts["kills"] < times:
            status = self.forked(self.rng.uniform(0, self.seconds))
            assert status in (0, signal.SIGKILL), status
            names = {path.name for path in self.folder.iterdir()}
            assert names <= {self.output.name, f".{self.output.name}.partial", "resumed"}, names
            self.counts["resumed"] += (self.folder / "resumed").exists()
            (self.folder / "resumed").unlink(missing_ok=True)
            if status:
                self.counts["kills"] += 1
            if self.output.exists():  # killed after the last moment, perhaps
                assert self.output.read_bytes() == self.expected
                self.finish()
                self.counts["finished"] += 1
        self.finish()
        return dict(self.counts)

    def finish(self) -> None:
        """Nothing is left beside the output, also where a fork was killed between writing it and clearing up."""
        assert self.forked(None) == 0
        assert self.output.read_bytes() == self.expected
        (self.folder / "resumed").unlink(missing_ok=True)
        self.output.unlink()
        self.counts["left"] += len(list(self.folder.iterdir()))

    def forked(self, kill_after: float | None) -> int:
        """Do the work in a child; returns its status as ``waitpid`` does, the signal's number where it was killed."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.work(self.output, self.tell)
                status = 0
            finally:
                os._exit(status)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]

    def tell(self, line: str) -> None:
        assert "already: continuing after them" in line, line
        (self.folder / "resumed").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "cache", "table", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    classifier = Classifier.load(options.run, "cpu")
    classifier.predict(["warm"])

    def predict(output: Path, tell: Callable[[str], None]) -> object:
        return predict_file(classifier, options.table, output, tell=tell)

    def search(output: Path, tell: Callable[[str], None]) -> object:
        return search_file(options.cache, options.table, output, tell=tell, device="cpu", pooling="mean")

    counts = {
        name: Killer(work, options.folder / name.split(".")[0], name, options.seed + i).kill(options.kills)
        for i, (name, work) in enumerate({"predict.csv": predict, "search.parquet": search}.items())
    }
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
