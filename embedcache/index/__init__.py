"""Indexes of vectors: what kind, built, measured, searched, kept in a file."""

from embedcache.index.search_index import Neighbours, SearchIndex

__all__ = ["Neighbours", "SearchIndex"]
