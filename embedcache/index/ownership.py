"""Which cache an index belongs to, whether it is up to date, and the command that builds it again."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from embedcache.cache import Cache
from embedcache.cache.fingerprint import output_fingerprint
from embedcache.common.int8_rows import Matrix
from embedcache.errors import EmbedcacheError
from embedcache.index import file_format
from embedcache.index.file_format import About


def vectors_of(cache: Cache, about: About, path: Path) -> Matrix:
    """The cache's vectors, if they are those that the index was made from."""
    output = (about.pooling, about.layer)
    copied = cache.rows == about.rows and _holds(cache, about)
    if not copied and (other := other_cache(about, path, cache)):
        raise EmbedcacheError(
            f"{path} belongs to another cache, {_shown(other)}, not to {_shown(cache.path)}: {_own(cache, path)}"
        )
    again = make_again(cache, path, about)
    if not _same_encoder(cache, about) or output not in cache.outputs:
        raise EmbedcacheError(f"{path} is not an index of {cache.path}, but of other vectors: {again}")
    stored = cache.embeddings(*output)
    if not _holds(cache, about) or stored.shape[1] != about.dim:
        raise EmbedcacheError(
            f"{path} is out of date, rows of {cache.path} have changed since{_moved(about, path)}: {again}"
        )
    if cache.rows > about.rows:
        more = f"{cache.rows - about.rows:,} rows were added to {cache.path} since"
        raise EmbedcacheError(f"{path} is out of date, {more}: {again}")
    return stored


def _holds(cache: Cache, about: About) -> bool:
    """Whether the cache begins with the rows that the index was made from."""
    output = (about.pooling, about.layer)
    there = _same_encoder(cache, about) and output in cache.outputs and cache.rows >= about.rows
    return there and file_format.rows_digest(cache, *output, about.rows) == about.digest


def _same_encoder(cache: Cache, about: About) -> bool:
    """Whether the index's vectors are made as the cache's; of others that the cache holds, too, it knows nothing."""
    if about.encoder is None:
        return cache.fingerprint == about.fingerprint
    output = (about.pooling, about.layer)
    return output_fingerprint(about.encoder, output) == output_fingerprint(cache.encoder, output)


def other_cache(about: About, path: Path, cache: Cache) -> Path | None:
    """The cache that the index at ``path`` was made from, where that is there and is not ``cache``."""
    named = _made_from(about, path)
    return named if named is not None and named.is_file() and not named.samefile(cache.path) else None


def _made_from(about: About, path: Path) -> Path | None:
    return None if about.cache is None else Path(os.path.normpath(path.absolute().parent / about.cache))


def _moved(about: About, path: Path) -> str:
    """What to add where an index's cache is no longer in its place: it may be this cache, or another."""
    named = _made_from(about, path)
    return "" if named is None or named.exists() else f", or it belongs to another ({_shown(named)}, not there now)"


def _own(cache: Cache, path: Path) -> str:
    """How to get an index of this cache beside one at ``path`` that is another's."""
    command = ["embedcache", "index", _shown(cache.path)]
    if path.absolute() == default_path(cache.path).absolute():
        place = path.with_name(f"{path.stem}-own{path.suffix}")
        command += ["-o", _shown(place)]
        return f"move it away, or run {_line(command)} and search with --index {place}"
    own = default_path(cache.path)
    return f"leave out --index, {_shown(own)} is there" if own.exists() else f"run {_line(command)}, leave out --index"


def make_again(cache: Cache, path: Path, about: About | None = None) -> str:
    """The command that builds the index again."""
    command = ["embedcache", "index", _shown(cache.path)]
    if path.absolute() != default_path(cache.path):
        command += ["-o", str(path)]
    if about is not None and (about.pooling, about.layer) in cache.outputs:
        command += ["--pooling", about.pooling] if about.pooling != cache.preferred(about.layer) else []
        command += ["--layers", str(about.layer)] if about.layer != -1 else []
        command += ["--center"] if about.center else []
        command += ["--recall", str(about.asked)] if about.asked != 0.99 else []
    return "run " + _line(command)


def _line(command: list[str]) -> str:
    """As one types it in a shell."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)


def _shown(path: Path) -> str:
    """Relative to where one is, if it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def default_path(p: str | Path) -> Path:
    """Where the index of a cache is by default: reviews.h5 -> reviews.index."""
    return Path(p).with_suffix(".index")
