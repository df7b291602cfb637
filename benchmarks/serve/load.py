"""embedcache serve under load: row queries on 100,000 x 384 one by one, then 200 clients at once for 30 s.

    python -m benchmarks.serve.load --json benchmarks/results/serve.json
    python -m benchmarks.serve.load --cache reviews.h5 --run heads     texts, too: /search and /predict of short texts

Without --cache one of random float16 vectors is made. The clients run in a process of their own, on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from benchmarks.machine import machine

ROWS, DIM = 100_000, 384
TEXTS = ["a tender, funny film that stays with you", "two hours of my life that I want back", "too long", "a fine cast"]


def made_cache(path: Path, rows: int, dim: int) -> Path:
    from tests.conftest import make_cache

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, dim), np.float32).astype(np.float16)
    labels = [("negative", "positive")[i % 2] for i in range(rows)]
    return make_cache(path, [f"text number {i}" for i in range(rows)], vectors, {"label": labels})


class Client:
    """One keep-alive connection that speaks just enough HTTP: the clients must cost less than the server."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
        self.writer.write(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        return int(lines[0].split()[1]), await self.reader.readexactly(length)

    def close(self) -> None:
        if self.reader is not None:
            self.writer.close()


def questions(rows: int, texts: bool, seed: int = 0) -> Any:
    """Endless (path, body): rows, and every third time a text of which no two are the same."""
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        number += 1
        if texts and number % 3 == 0:
            text = f"{TEXTS[number % len(TEXTS)]}, {rng.integers(1 << 30)}"
            yield ("/predict", {"texts": [text]}) if number % 2 else ("/search", {"query": text, "k": 10})
        else:
            yield "/search", {"row": int(rng.integers(rows)), "k": 10}


async def load(host: str, port: int, clients: int, seconds: float, rows: int, texts: bool = False) -> dict[str, Any]:
    """What many clients at once saw: each asks again as soon as it is answered; a lost request is counted."""
    times: list[float] = []
    statuses: Counter[str] = Counter()
    end = time.perf_counter() + seconds

    async def one(seed: int) -> None:
        client, asked = Client(host, port), questions(rows, texts, seed)
        while time.perf_counter() < end:
            path, body = next(asked)
            start = time.perf_counter()
            try:
                status, content = await client.post(path, body)
                statuses[str(status)] += 1
                if status == 200:
                    json.loads(content)
            except (OSError, EOFError, ValueError) as error:
                statuses[f"lost: {type(error).__name__}"] += 1
                client.close()
                client = Client(host, port)
            times.append(time.perf_counter() - start)
        client.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(seed) for seed in range(clients)))
    return {
        "clients": clients,
        "seconds": round(time.perf_counter() - start, 2),
        "requests": sum(statuses.values()),
        "statuses": dict(statuses),
        "lost": sum(count for status, count in statuses.items() if status != "200"),
        "requests_per_second": round(len(times) / (time.perf_counter() - start), 1),
        **percentiles(times),
    }


async def one_by_one(host: str, port: int, path: str, bodies: list[Any]) -> dict[str, Any]:
    client, times = Client(host, port), []
    for body in bodies:
        start = time.perf_counter()
        status, _ = await client.post(path, body)
        assert status == 200
        times.append(time.perf_counter() - start)
    client.close()
    return {"requests": len(times), **percentiles(times[len(times) // 10 :])}


def percentiles(times: list[float]) -> dict[str, float]:
    p50, p95, p99 = 1000 * np.percentile(times, [50, 95, 99])
    return {"p50_ms": round(p50, 2), "p95_ms": round(p95, 2), "p99_ms": round(p99, 2)}


class Served:
    """The command itself, on a free port, until the block ends."""

    def __init__(self, *arguments: Any, command: str = "serve") -> None:
        self.command = [sys.executable, "-m", "embedcache", command, *map(str, arguments), "--port", "0", "--json"]

    def __enter__(self) -> dict[str, Any]:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        return json.loads(line)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0


def wait_for_map(url: str) -> float:
    """Seconds until it was ready: it is computed on the same cores."""
    start = time.perf_counter()
    while read(f"{url}map")["status"] == "computing":
        time.sleep(0.5)
    return round(time.perf_counter() - start, 1)


def read(url: str) -> Any:
    with urlopen(url) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache")
    parser.add_argument("--run")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or made_cache(Path(folder) / "made.h5", ROWS, DIM)
        found: dict[str, Any] = {"machine": machine("faiss-cpu", "fastapi", "uvicorn")}
        found["cache"] = Path(cache).name if options.cache else f"random {ROWS:,} x {DIM} float16"
        found |= measure(cache, options.run, options.clients, options.seconds)
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(cache: str | Path, run: str | None, clients: int, seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    with Served(cache, *(["--run", run] if run else [])) as about:
        found: dict[str, Any] = {"start_seconds": round(time.perf_counter() - start, 2), "rows": about["rows"]}
        host, port = about["url"].split("//")[1].rstrip("/").split(":")

        def ask(path: str, bodies: list[Any]) -> dict[str, Any]:
            return asyncio.run(one_by_one(host, int(port), path, bodies))

        found["map_seconds"] = wait_for_map(about["url"])
        rows = np.random.default_rng(1).integers(about["rows"], size=500).tolist()
        found["row_search"] = ask("/search", [{"row": row} for row in rows])
        (column, about_it), *_ = read(f"{about['url']}info")["labels"].items()
        where = f'{column}="{next(iter(about_it["classes"]))}"'
        found["row_search_where"] = ask("/search", [{"row": row, "where": where} for row in rows])
        if run:
            texts = [f"{TEXTS[i % len(TEXTS)]}, {i}" for i in range(200)]
            found["text_search"] = ask("/search", [{"query": text} for text in texts])
            found["predict"] = ask("/predict", [{"texts": [text]} for text in texts])
        found["load"] = asyncio.run(load(host, int(port), clients, seconds, about["rows"], texts=bool(run)))
    return found


if __name__ == "__main__":
    main()
