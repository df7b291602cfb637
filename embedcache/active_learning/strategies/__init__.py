"""The strategies: a file each, and one line here.

Files, in the order in which to read them:

    strategy       What every strategy is, and what it chooses by
    likely_errors  Rows whose label is likely wrong, by audit's judgement
    uncertain      Rows of which the heads are least sure, unlike each other
    unlike         Rows that are unlike every labelled row
    rare           Rows that may be of classes that few labelled rows have
    typical        Rows that stand for many others, before there are heads
    random_rows    Rows drawn by chance
"""

from __future__ import annotations

from embedcache.active_learning.strategies import likely_errors, random_rows, rare, typical, uncertain, unlike
from embedcache.active_learning.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    module.VARIANT.name: module.VARIANT for module in (likely_errors, uncertain, unlike, rare, typical, random_rows)
}
