"""Do the words that predict --explain names matter, and how fast are they found? docs/trust.md.

python -m benchmarks.prediction.explain CACHE RUN [--texts 500] [--words 3] [--json FILE]

Of test rows of the run the named words are deleted together, and as many random others of the same text. What counts
is how far the probability of the predicted label moves. Rates are of wall time and of processor time over all cores;
"encodings" is what bounds them: every text is encoded once for each of its words. "different" counts the token rows
among these that differ, all texts together: what duplicates could save. "encoding_share" is the encoder's part of the
processor time; all else (tokens, heads, neighbours) is the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.explain import Occlusion, parts_of, without
from embedcache.runs.sides import stored_sides
from embedcache.runs.split import SIDES


def delete(text: str, parts: list[tuple[int, int]]) -> str:
    for part in sorted(parts, reverse=True):
        text = without(text, part)
    return text


def measure(classifier: Classifier, texts: list[str], words: int) -> dict[str, Any]:
    encodings = sum(len(parts_of(text)) for text in texts)
    classifier.predict(texts[:8], explain=True)
    spent, encoder = 0.0, classifier.encoder
    assert encoder is not None
    different = len(set(map(tuple, encoder.tokenize(Occlusion(texts).variants).ids)))
    encode_tokens = encoder.encode_tokens

    def timed(*arguments: Any, **options: Any) -> Any:
        nonlocal spent
        before = time.process_time()
        vectors = encode_tokens(*arguments, **options)
        spent += time.process_time() - before
        return vectors

    start, cpu, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    with mock.patch.object(encoder, "encode_tokens", timed):
        found = classifier.predict(texts, explain=True)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    rng = np.random.default_rng(0)
    named, others, whole, label = [], [], [], []
    for text, one in zip(texts, found, strict=True):
        explanation: Any = one.explanation
        chosen = [(word["start"], word["end"]) for word in explanation["words"] if word["effect"] > 0][:words]
        rest = [part for part in parts_of(text) if part not in chosen]
        if not chosen or len(rest) < len(chosen):
            continue
        drawn = [rest[i] for i in rng.permutation(len(rest))[: len(chosen)]]
        named.append(delete(text, chosen))
        others.append(delete(text, drawn))
        whole.append(one.probabilities[explanation["label"]])
        label.append(classifier.classes.index(explanation["label"]))
    rows = np.arange(len(named))
    size, flips = {}, {}
    for name, some in (("named", named), ("random", others)):
        p = classifier.predict_proba(some)
        size[name] = np.abs(np.array(whole) - p[rows, label])
        flips[name] = float((p.argmax(axis=1) != np.array(label)).mean())
    return {
        "texts": len(texts),
        "compared": len(named),
        "words": words,
        "encodings": encodings,
        "different": different,
        "encoding_share": spent / cpu_seconds,
        "seconds": seconds,
        "processor_seconds": cpu_seconds,
        "load_average": load,
        "texts_per_second": len(texts) / seconds,
        "texts_per_processor_second": len(texts) / cpu_seconds,
        "encodings_per_processor_second": encodings / cpu_seconds,
        "mean_change": {name: float(one.mean()) for name, one in size.items()},
        "label_changes": flips,
        "named_changes_more": float((size["named"] > size["random"]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("run")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--words", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.run)
    with open_cache(arguments.cache) as cache:
        test = np.flatnonzero(stored_sides(cache, classifier.run, arguments.run) == SIDES.index("test"))
        texts = [cache.texts[row] for row in test[: arguments.texts].tolist()]
    document = {"machine": machine("numpy"), **measure(classifier, texts, arguments.words)}
    print(json.dumps(document, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
