"""Do the words that predict --explain names matter, and how fast are they found? docs/trust.md.

python -m benchmarks.prediction.explain CACHE RUN [--texts 500] [--words 3] [--tried N] [--json FILE]

Of test rows of the run the named words are deleted together, and as many random others of the same text. What counts
is how far the probability of the predicted label moves. Rates are of wall time and of processor time over all cores;
"encodings" is what bounds them: every text is encoded once for each of its words. "different" counts the token rows
among these that differ, all texts together: what duplicates could save. "encoding_share" is the encoder's part of the
processor time; all else (tokens, heads, neighbours) is the rest. With --tried N it is --explain-words N that is
measured; the first FULL texts are then explained by all words, too: how many of the first three words were found, and
how much of the sum of their effects those have that were found instead.
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

FULL = 100


def delete(text: str, parts: list[tuple[int, int]]) -> str:
    for part in sorted(parts, reverse=True):
        text = without(text, part)
    return text


def against_full(classifier: Classifier, texts: list[str], found: Any, words: int) -> dict[str, Any]:
    """What a full search finds of the first texts, beside what was found."""
    recalled, effects = [], []
    for one, full in zip(found, classifier.predict(texts, explain=True), strict=False):
        named, best = (
            {word["start"]: word["effect"] for word in each.explanation["words"][:words] if word["effect"] > 0}
            for each in (one, full)
            if each.explanation is not None
        )
        if best:
            recalled.append(len(named.keys() & best.keys()) / len(best))
            effects.append((sum(named.values()), sum(best.values())))
    mine, theirs = np.sum(effects, axis=0)
    return {"texts": len(effects), "words_found": float(np.mean(recalled)), "effect_share": float(mine / theirs)}


def measure(classifier: Classifier, texts: list[str], words: int, tried: int | None) -> dict[str, Any]:
    encodings = sum(min(len(parts_of(text)), tried or 99) for text in texts) + (len(texts) if tried else 0)
    how: dict[str, Any] = {"explain": True, "explain_words": tried}
    classifier.predict(texts[:8], **how)
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
        found = classifier.predict(texts, **how)
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
        **({"tried": tried, "full": against_full(classifier, texts[:FULL], found, words)} if tried else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("run")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--words", type=int, default=3)
    parser.add_argument("--tried", type=int, metavar="N")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.run)
    with open_cache(arguments.cache) as cache:
        test = np.flatnonzero(stored_sides(cache, classifier.run, arguments.run) == SIDES.index("test"))
        texts = [cache.texts[row] for row in test[: arguments.texts].tolist()]
    document = {"machine": machine("numpy"), **measure(classifier, texts, arguments.words, arguments.tried)}
    print(json.dumps(document, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
