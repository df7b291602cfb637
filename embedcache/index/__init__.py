"""Indexes of vectors: what kind, built, measured, searched, kept in a file."""

from embedcache.common.callable_module import make_callable
from embedcache.index.ownership import default_path
from embedcache.index.search_index import Neighbours, SearchIndex, stored_output

__all__ = ["Neighbours", "SearchIndex", "default_path", "stored_output"]

make_callable(__name__, "embedcache.index.job", "index_cache")
