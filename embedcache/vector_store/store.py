"""The vectors of one encoder in a folder: a cache like any other, and a log of what is newer than it.

    ENCODER.h5        an ordinary cache, without labels: most rows
    ENCODER.log       what was appended since

1. Who looks something up reads both; of a log that has grown, the new end alone.
2. Who appends holds the lock, reads what others appended meanwhile, and writes behind it: it costs what is new.
3. Once the log is half as long as the cache, the writer makes a new cache of both beside the old one, which takes its
   place, then an empty log. So a row is copied some three times in all, however many calls bring them. A crash between
   the two leaves rows in both, which does no harm.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.checksums import digest
from embedcache.cache.create import Writer, create, make_contents, publish
from embedcache.cache.file import Cache
from embedcache.cache.fingerprint import fingerprint
from embedcache.cache.layout import BLOCK_ROWS, Output, sibling
from embedcache.cache.map_file import FileId, file_id
from embedcache.cache.stored_rows import to_store
from embedcache.common.lock import BusyError, locked
from embedcache.common.open_files import open_file
from embedcache.errors import EmbedcacheError
from embedcache.vector_store.log import Log, LogPart

LEAST = 8192  # rows of a log before it is merged into the cache
WAIT = 600.0  # seconds for another process to append, or to merge
TURN = 0.005  # between two tries


class VectorStore:
    """The vectors of one encoder and output. Its methods are called by one thread at a time.

    Attributes:
        path: of the cache.
        rows: how many texts are known.
    """

    def __init__(self, path: Path, encoder: Mapping[str, Any], output: Output, dim: int) -> None:
        self.path, self._encoder, self._output, self._dim = path, dict(encoder), output, dim
        self._log = Log(path.with_suffix(".log"), fingerprint(encoder), dim, str(encoder["store"]))
        self._handle, self._end = -1, 0
        self._put_off = 0  # rows of a log that could not be merged, and is not tried again with fewer
        self._log_id: FileId | None = None
        self._cache: Cache | None = None
        self._sorted = np.empty(0, np.uint64), np.empty(0, np.int64)  # halves of hashes in order, and their rows
        self._sound = np.empty(0, np.int8)  # of each block of the cache: 1 sound, -1 not, 0 not looked at yet
        self._parts: list[LogPart] = []
        self._recent: dict[bytes, tuple[int, int]] = {}  # hash -> part and row of the log

    @property
    def rows(self) -> int:
        return (self._cache.rows if self._cache else 0) + len(self._recent)

    def refresh(self) -> None:
        """See what is new. The log comes first: what is merged meanwhile is seen in both then, never in neither."""
        self._open_log()
        if self._handle >= 0 and os.fstat(self._handle).st_size > self._end:
            parts, self._end = self._log.read(self._handle, self._end)
            for part in parts:
                self._note(part)
        self._let_go()
        cache_id = file_id(self.path)
        if cache_id != (self._cache.inode if self._cache else None):
            self._open_cache()

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(bool [n], [m, D]): which texts are known, uint8 [n, 16], and the vectors of these, in order."""
        known, vectors = np.zeros(len(hashes), bool), np.empty((len(hashes), self._dim), self._encoder["store"])
        if self._cache is not None and self._cache.rows and len(hashes):
            halves, rows = self._sorted
            both = np.ascontiguousarray(hashes).view(np.uint64)  # (n, 2)
            place = np.minimum(np.searchsorted(halves, both[:, 0]), len(halves) - 1)
            there = rows[place]
            equal = (self._cache.hashes[there] == hashes).all(axis=1)
            equal &= self._sound_rows(there, equal)
            known |= equal
            vectors[equal] = self._cache.array(self._cache.output_paths[self._output])[there[equal]]
        for i in np.flatnonzero(~known).tolist() if self._recent else ():
            found = self._recent.get(hashes[i].tobytes())
            if found is not None:
                known[i], vectors[i] = True, self._parts[found[0]].vectors[found[1]]
        return known, vectors[known]

    def append(self, hashes: np.ndarray, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Add texts with their vectors float32 [n, D], those that nobody else has added meanwhile.

        Raises:
            EmbedcacheError: no space, or another process holds the lock for too long.
        """
        stored = to_store(vectors, str(self._encoder["store"]), np.arange(len(texts)), texts)
        with self._turn():
            self.refresh()
            if self._log_id is None:
                self._log.create()
                self.refresh()
            known, _ = self.find(hashes)
            new = np.flatnonzero(~known).tolist()
            if len(new):
                raw = [texts[i].encode() for i in new]
                data = np.frombuffer(b"".join(raw), np.uint8)
                part = LogPart(hashes[new], data, np.cumsum([len(one) for one in raw], dtype=np.int64), stored[new])
                self._open_log()
                self._end = self._log.append(self._handle, self._end, part)
                self._note(part)
                self._let_go()
            if len(self._recent) >= max(LEAST, self._put_off, (self._cache.rows if self._cache else 0) // 2):
                self._merge()

    def merge(self) -> None:
        """Bring all that is in the log into the cache. Raises EmbedcacheError as ``append``."""
        with self._turn():
            self.refresh()
            if self._recent:
                self._merge()

    def close(self) -> None:
        self._forget_log()
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _merge(self) -> None:
        """A new cache of the old one's sound rows and the log's, then an empty log. The caller holds the lock."""
        target, beside, old = self.path, sibling(self.path, "new"), self._cache
        rows = self._sound_all() if old is not None else np.empty(0, np.int64)
        hashes = [old.hashes[rows]] if old is not None else []
        texts = [old.texts[int(row)].encode() for row in rows] if old is not None else []
        fresh = list(self._recent.values())
        hashes += [self._parts[part].hashes[row][None] for part, row in fresh]
        texts += [_text(self._parts[part], row) for part, row in fresh]
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in texts], dtype=np.int64)])
        contents = make_contents(
            np.concatenate(hashes), (np.frombuffer(b"".join(texts), np.uint8), offsets), {}, {}, self._encoder,
            {self._output: self._dim},
        )  # fmt: skip
        beside.unlink(missing_ok=True)
        create(beside, contents, sibling(target, "tmp"))
        with Writer(beside) as writer:
            (path,) = writer.cache.output_paths.values()
            for start in range(0, len(texts), BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, len(texts))
                part = np.empty((stop - start, self._dim), self._encoder["store"])
                here = rows[start:stop]
                if old is not None and len(here):
                    part[: len(here)] = old.array(old.output_paths[self._output])[here]
                for i in range(start + len(here), stop):
                    number, row = fresh[i - len(rows)]
                    part[i - start] = self._parts[number].vectors[row]
                writer.put_vectors(path, start, part)
                writer.put(lay.TRUNCATED, start, np.zeros(stop - start, np.uint8))
            writer.commit(path, 0, writer.cache.layout.blocks)
            writer.sync()
        rows_of_log = len(self._recent)
        self.close()
        try:
            publish(beside, target)
            self._log.create()
            self._put_off = 0
        except PermissionError:
            if sys.platform != "win32":
                raise
            # Another process reads one of them, and there no open file can be replaced. The log goes on.
            self._put_off = rows_of_log * 3 // 2
            beside.unlink(missing_ok=True)
        self.refresh()

    def _sound_all(self) -> np.ndarray:
        """int64, the rows of the cache in sound blocks."""
        assert self._cache is not None
        rows = np.arange(self._cache.rows)
        return rows[self._sound_rows(rows, np.ones(len(rows), bool))]

    def _sound_rows(self, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """bool [n]: the row's block agrees with its checksum; each is looked at once, when it is first needed."""
        cache = self._cache
        assert cache is not None
        path = cache.output_paths[self._output]
        for block in np.unique(rows[asked] // BLOCK_ROWS).tolist():
            if not self._sound[block]:
                agrees = digest(cache, path, block) == cache.checksums(path)[block].tobytes()
                self._sound[block] = 1 if agrees else -1
        return np.asarray(self._sound[rows // BLOCK_ROWS] > 0)

    def _open_cache(self) -> None:
        if self._cache is not None:
            self._cache.close()
            self._cache = None
        if not self.path.exists():
            return
        cache = Cache(self.path)
        if not cache.sealed or cache.fingerprint != fingerprint(self._encoder) or self._output not in cache.outputs:
            raise EmbedcacheError(f"{self.path} is not what ec.cached made, or is damaged: delete it")
        halves = np.ascontiguousarray(cache.hashes).view(np.uint64)[:, 0]
        order = np.argsort(halves, kind="stable")
        self._cache, self._sorted = cache, (halves[order], order)
        self._sound = np.zeros(cache.layout.blocks, np.int8)

    def _note(self, part: LogPart) -> None:
        number = len(self._parts)
        self._parts.append(part)
        for row, one in enumerate(part.hashes):
            self._recent.setdefault(one.tobytes(), (number, row))

    def _open_log(self) -> None:
        """The log that is there now, if there is one; of another one than before, nothing is known yet."""
        if file_id(self._log.path) != self._log_id:
            self._forget_log()
        if self._handle < 0:
            with suppress(FileNotFoundError):
                handle = _opened(self._log.path)
                status = os.fstat(handle)
                if (status.st_dev, status.st_ino) != self._log_id:
                    self._forget_log()
                self._handle, self._log_id = handle, (status.st_dev, status.st_ino)

    def _let_go(self) -> None:
        """Where no open file can be replaced, the log is open for as long as it is read or written, and no longer.

        Elsewhere it stays open, so that no other file is given its number. Windows does not give numbers again.
        """
        if sys.platform == "win32" and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _forget_log(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._log_id, self._end, self._parts = -1, None, 0, []
        self._recent = {}

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock; another process that appends is waited for."""
        until = time.monotonic() + WAIT
        while True:
            try:
                with locked(
                    sibling(self.path, "lock"), lambda who: f"{who} is writing {self.path}; wait until it ends"
                ):
                    yield
                return
            except BusyError:
                if time.monotonic() > until:
                    raise
            time.sleep(TURN)


def _opened(path: Path) -> int:
    """To read and write, or where that is not allowed to read. Raises FileNotFoundError."""
    try:
        return open_file(path, os.O_RDWR)
    except PermissionError:
        return open_file(path, os.O_RDONLY)


def _text(part: LogPart, row: int) -> bytes:
    start = int(part.ends[row - 1]) if row else 0
    return part.data[start : int(part.ends[row])].tobytes()
