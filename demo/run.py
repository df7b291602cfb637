"""The main job on real reviews: embed 4,000 of them once, train 40 heads, label two sentences, find similar reviews."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import fetch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "demo" / "out"


def run(*arguments: str) -> None:
    """Print a command as one would type it, then run it; stop the demo if it fails."""
    print(
        f"\n\033[1m$ embedcache {shlex.join(arguments)}\033[0m"
        if sys.stdout.isatty()
        else f"\n$ embedcache {shlex.join(arguments)}",
        flush=True,
    )
    code = subprocess.run([sys.executable, "-m", "embedcache", *arguments], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    start = time.perf_counter()
    model, reviews = (path.relative_to(ROOT).as_posix() for path in (fetch.encoder(), fetch.reviews()))
    OUT.mkdir(parents=True, exist_ok=True)
    cache, heads = "demo/out/reviews.h5", "demo/out/heads"
    run("extract", reviews, "-o", cache, "--model", model, "--keep", "movie")
    sweep = ["--hidden", "0,64,512", "--lr", "1e-4,1e-3", "--dropout", "0.1,0.3", "--seed", "0,1,2,3"]
    run("train-head", cache, "-o", heads, "--group", "movie", *sweep)
    run(
        "predict", heads, "A tender, funny film that stays with you for days.", "Two hours of my life that I want back."
    )
    run("search", cache, "a horror film that forgets to be scary", "-k", "5")
    print(
        f"""
That took {time.perf_counter() - start:.0f} s. What was made, in demo/out:
  reviews.h5  the cache: 4,000 reviews and their vectors, one ordinary HDF5 file (embedcache info {cache})
  heads/      40 trained heads: best.safetensors, heads.safetensors, run.json, and what is known of each of them in
              report.html (open it: curves, mistakes with their texts), README.md, leaderboard.csv, history.csv

Try next, with . .venv/bin/activate:
  embedcache extract {reviews} -o {cache} --model {model} --keep movie
      again: nothing is encoded twice
  embedcache search {cache} --row 7 --where "label=fresh and not movie=i_spy"
  embedcache audit {cache} -o demo/out/audit.csv
      which labels are likely wrong, which texts stand there twice
  embedcache serve {cache} --run {heads}
      the same in the browser (first: .venv/bin/pip install -e '.[serve]')
  embedcache extract YOUR.csv -o yours.h5 --text TEXT_COLUMN --label LABEL_COLUMN --model bert-base-uncased
  embedcache train-head yours.h5 -o yours --lr 1e-4,1e-3 --seed 0,1,2
  docs/tutorial.md goes through it step by step"""
    )


if __name__ == "__main__":
    main()
