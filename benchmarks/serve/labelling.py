"""embedcache label: from a key to the next row, and from a label to a retrained score.

    python -m benchmarks.serve.labelling --json benchmarks/results/labelling.json
    python -m benchmarks.serve.labelling --cache reviews.h5 --json benchmarks/results/labelling-reviews.json

Without --cache: 100,000 x 384 random vectors whose classes lie apart, 2,000 of them labelled. One person labels without
a pause while heads are trained again all the time. "key": a label is written (on the disk) and the next row fetched,
one after the other; the page itself has the next rows before the key is pressed. "retrained": from a label's answer to
a score that knows it. The cache is copied, so that its own journal stays as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.machine import machine
from benchmarks.serve.load import Served, percentiles, read

ROWS, DIM, LABELLED = 100_000, 384, 2_000
LABELS, TIMES = 400, 10


def made_cache(path: Path) -> Path:
    from tests.conftest import make_cache

    rng = np.random.default_rng(0)
    y = rng.integers(2, size=ROWS)
    vectors = (rng.standard_normal((ROWS, DIM)) + 0.15 * (2 * y[:, None] - 1)).astype(np.float16)
    labels = [("negative", "positive")[y[i]] if i < LABELLED else None for i in range(ROWS)]
    return make_cache(path, [f"text number {i}" for i in range(ROWS)], vectors, {"label": labels})


def ask(url: str, path: str, body: Any) -> Any:
    request = Request(f"{url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)


def measure(cache: Path) -> dict[str, Any]:
    with Served(cache, command="label") as about:
        url = about["url"]
        read_until(url, lambda found: found["round"] >= 1 and not found["training"])
        classes = read(f"{url}labelling")["classes"]
        keys: list[float] = []
        held = ask(url, "labelling/next", {"who": "one", "count": 2})["rows"]
        for i in range(LABELS):
            row = held.pop(0)
            start = time.perf_counter()
            one = {
                "id": f"{i}",
                "row": row["row"],
                "label": classes[i % len(classes)],
                "who": "one",
                "queue": row["queue"],
            }
            ask(url, "labelling/labels", {"labels": [one]})
            held += ask(url, "labelling/next", {"who": "one", "count": 1, "held": [held[0]["row"]]})["rows"]
            keys.append(time.perf_counter() - start)
        seconds: list[float] = []
        for i in range(TIMES):
            read_until(url, lambda found: not found["training"])
            before = read(f"{url}labelling/progress")["round"]
            row = ask(url, "labelling/next", {"who": "one", "count": 1})["rows"][0]
            one = {"id": f"again {i}", "row": row["row"], "label": classes[0], "who": "one"}
            ask(url, "labelling/labels", {"labels": [one]})
            start = time.perf_counter()
            read_until(url, lambda found, before=before: found["round"] > before)
            seconds.append(time.perf_counter() - start)
        found = read(f"{url}labelling/progress")
        median, most = round(float(np.median(seconds)), 2), round(max(seconds), 2)
        return {
            "rows": about["rows"],
            "learned": found["learned"],
            "key": {"labels": LABELS, **percentiles(keys)},
            "retrained": {"times": TIMES, "median_s": median, "most_s": most},
            "training_s": round(found["seconds"], 2),
        }


def read_until(url: str, reached: Any) -> None:
    while not reached(read(f"{url}labelling/progress")):
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labelled.h5"
        cache = made_cache(path) if options.cache is None else Path(shutil.copy(options.cache, path))
        found = {"machine": machine("fastapi", "uvicorn"), "cache": options.cache.name if options.cache else "random"}
        found |= measure(cache)
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
