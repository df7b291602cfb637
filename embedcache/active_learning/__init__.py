"""Which rows people should label next, heads trained again while they do, and when they can stop.

Everything takes arrays; from_cache and the job read a cache. Files, in the order in which to read them:

    snapshot    The rows, and their labels at one moment
    retrain     Heads trained on a snapshot in a second: what they say of every row, and how good they are
    judgement   Which labels are likely wrong, by audit's judgement
    strategies  Ways to choose rows, a file each
    queue       The rows to look at next: a mix of the strategies, with reasons and guesses
    estimates   Wrong labels left, agreement of people, speed, the gain of more labels, when to stop
    from_cache  A cache and the journal over its labels, as pool and snapshot
    job         The door: the rows to label next, as a table
"""

from __future__ import annotations
