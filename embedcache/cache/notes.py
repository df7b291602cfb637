"""What a user should know of the data in a cache before trusting what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedcache.cache.file import Cache
from embedcache.cache.labels import label_counts
from embedcache.cache.layout import output_name
from embedcache.cache.stored_rows import SCALE_BYTES
from embedcache.cache.tokens import reading_of
from embedcache.common.int8_rows import Int8Rows, kept_cosines
from embedcache.common.label_names import label_notes

SAMPLE = 4096  # rows by which the rounding to int8 is judged
CLOSE = 0.9998  # the median cosine from which on nothing of it shows (benchmarks/results/store-int8.json)


def data_notes(cache: Cache, columns: Sequence[str] | None = None) -> list[str]:
    """Sentences on texts that are not read or not known, and on odd classes of these label columns (None: of all)."""
    notes = reading_of(cache).notes()
    for name in cache.label_names if columns is None else columns:
        if name in cache.label_names:
            codes, classes = cache.labels(name)
            notes += label_notes(name, classes, label_counts(codes, len(classes)).tolist())
    return notes


def rounding_notes(cache: Cache) -> list[str]:
    """What int8 saves and costs in a cache that stores its vectors so, by its first rows; nothing of other caches."""
    kept = {}
    for output in cache.outputs:
        rows = cache.embeddings(*output, allow_incomplete=True)
        if isinstance(rows, Int8Rows) and len(found := kept_cosines(rows.part(slice(SAMPLE)))):
            kept[output_name(output)] = float(np.median(found))
    if not kept:
        return []
    widths = [cache.width(output) for output in cache.outputs]
    size = f"{sum(widths) + SCALE_BYTES * len(widths):,} bytes a row instead of float16's {2 * sum(widths):,}"
    close = ", ".join(f"{name} {cosine:.5f}" for name, cosine in kept.items())
    far = [name for name, cosine in kept.items() if cosine < CLOSE]
    why = f"; a few numbers of {' and '.join(far)} dwarf the others, which float16 would keep" if far else ""
    return [f"vectors are int8 with a scale for each row, {size}; median cosine to unrounded ones: {close}{why}"]
