"""Indexes of vectors: what kind, built, measured, searched, kept in a file.

Files, in the order in which to read them:

    job            The door: build a cache's index file, or bring one up to date
    search_index   An index of vectors by cosine: built from a cache, searched by texts or vectors, kept in a file
    kind           What a kind of index says of itself
    plan           Which kind of index, how large and how long: a pure function of the task and the machine
    build          From a plan to a searchable index: built, measured and tuned; the prediction is reported first
    exact          Exact search by cosine, straight from the stored vectors, and what all kinds share
    approximate    What the kinds share that do not compare every row, by FAISS
    kinds/         The kinds of index, a file each, and the list of them
    gpu            The same searches on a GPU, by FAISS: clones in float16, and exact scores afterwards as everywhere
    own_row        A row's own neighbours: what a search finds for it, without the row itself
    tune           Recall@10 of an index, measured on held-out rows of its own
    file_format    The index file: sections of bytes, then a JSON footer that says what they are
    schema         What the footer of an index may hold
    ownership      Which cache an index belongs to, whether it is up to date, and the command that builds it again
    open_index     The index that a search uses: the one named, that of the cache's own name
"""

from embedcache.common.callable_module import make_callable
from embedcache.index.ownership import default_path
from embedcache.index.search_index import Neighbours, SearchIndex, stored_output

__all__ = ["Neighbours", "SearchIndex", "default_path", "stored_output"]

make_callable(__name__, "embedcache.index.job", "index_cache")
