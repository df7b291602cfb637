"""Indexes of vectors: what kind, built, measured, searched, kept in a file."""

from embedcache.index.search_index import Neighbours, SearchIndex, default_path

__all__ = ["Neighbours", "SearchIndex", "default_path"]
