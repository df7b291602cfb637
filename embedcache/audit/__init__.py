"""What a cached matrix tells of its own rows: likely label errors, duplicates, outliers.

Files, in the order in which to read them:

    job          The door: a cache in, a report out
    experts      Three opinions of every row's label, none of which has seen that label: heads, neighbours and words
    judge        One opinion of three: the experts' log-probabilities, weighed by maximum likelihood
    labels       Rows whose label is likely wrong, by what the experts say of them
    count        How many labels are wrong: an estimate with an interval, in all and for each class
    neighbours   The texts most like each text, found once: for the neighbours' vote
    duplicates   Texts that stand in the table more than once: to the letter, but for case and punctuation, or nearly
    outliers     Texts that are like no others
    sides        The sides of a split that duplicates should not cross: a column's values, or those of a run
    report       What an audit has found: as data, as JSON, as a CSV
"""

from __future__ import annotations

from embedcache.audit.job import audit_cache
from embedcache.audit.report import AuditReport
from embedcache.common.callable_module import make_callable

__all__ = ["AuditReport", "audit_cache"]

make_callable(__name__, "embedcache.audit.job", "audit_cache")
