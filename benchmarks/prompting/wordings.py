"""How accurate is zero-shot by similarity, and how much does the wording of the labels decide? Nothing is trained.

python -m benchmarks.prompting.wordings CACHE [--group movie] [--json FILE]

CACHE holds critics' snippets with a column ``label`` of fresh and rotten. Every wording is scored on all rows; none is
chosen, since nobody who has no labels could.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import embedcache as ec
from benchmarks.machine import RESULTS, machine

WORDINGS = {
    "the names alone": ("fresh", "rotten"),
    "one word": ("good", "bad"),
    "a film": ("a good film", "a bad film"),
    "a sentence": ("This is a good film.", "This is a bad film."),
    "what a critic says": ("The critic recommends this film.", "The critic advises against this film."),
    "several": (
        "a good film | a moving and funny film | wonderful acting | a film worth seeing",
        "a bad film | a dull and stupid film | terrible acting | a waste of time",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--group", default="movie")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for name, said in WORDINGS.items():
        labels = {label: text.split(" | ") for label, text in zip(("fresh", "rotten"), said, strict=True)}
        report = ec.zero_shot(options.cache, labels, group=options.group)
        assert report.scores is not None
        found[name] = {"labels": labels, **report.scores.to_dict(), "seconds": report.seconds}
        accuracy = report.scores.scores["accuracy"]
        print(f"{name:20} {accuracy.value:.3f} {accuracy.interval}")
    path = options.json or RESULTS / f"zero-shot-{report.rows}.json"
    document = {"machine": machine("torch", "transformers"), "load": os.getloadavg(), "wordings": found}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
