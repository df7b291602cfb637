"""The kinds of index: a class each, and one line here.

Files, in the order in which to read them:

    hnsw    A graph of neighbours
    ivf     Rows in lists, of which the nearest are read
    ivfpq   The same over 4-bit codes, the best of them compared again
"""

from __future__ import annotations

from embedcache.index.approximate import Approximate
from embedcache.index.exact import Exact
from embedcache.index.kind import IndexKind
from embedcache.index.kinds.hnsw import Hnsw
from embedcache.index.kinds.ivf import Ivf
from embedcache.index.kinds.ivfpq import IvfPq

KINDS: dict[str, type[IndexKind]] = {one.kind: one for one in (Exact, Hnsw, Ivf, IvfPq)}


def engine_of(kind: str) -> type[Approximate]:
    """The class that builds and searches a kind that is not exact. Raises KeyError where there is no such kind."""
    found = KINDS[kind]
    if not issubclass(found, Approximate):
        raise KeyError(kind)
    return found
