"""Whether new rows are like the old ones: told apart by a head, by words, by labels and by columns.

Files, in the order in which to read them:

    job      The door: a cache and new rows in, a report out
    rows     The rows that are compared, of a cache or a table
    domain   A head that tells new rows from old ones, cross-fitted, and how well it does
    calibrated  Probabilities that are right for every class on the mean
    labels   What the new rows' labels are likely to be, without knowing one
    traits   Words and columns that differ
"""

from __future__ import annotations

from embedcache.common.callable_module import make_callable
from embedcache.drift.job import DriftReport, compare_rows

__all__ = ["DriftReport", "compare_rows"]

make_callable(__name__, "embedcache.drift.job", "compare_rows")
