"""Texts, rows or a file of them in, the nearest rows of a cache out.

Files, in the order in which to read them:

    job        The door: one query, or a file of them, answered
    query      What is looked for: texts and rows that the results should be like, and unlike
    searcher   The rows of a cache that are most like texts or other rows, and unlike others
    file       A file of queries, answered into a table
"""

from embedcache.common.callable_module import make_callable
from embedcache.search.searcher import Answer, Found, Query, Searcher

__all__ = ["Answer", "Found", "Query", "Searcher"]

make_callable(__name__, "embedcache.search.job", "search_cache")
