"""One writer of a cache at a time. Readers do not look at the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedcache.cache.layout import sibling
from embedcache.common.lock import NoLocksError, locked
from embedcache.errors import EmbedcacheError


@contextmanager
def writer_lock(cache: Path) -> Iterator[None]:
    """Hold the lock of ``cache``; the kernel releases it however this process ends.

    Raises:
        EmbedcacheError: someone else writes to this cache, the folder cannot be written, or it refuses locks.
    """

    def busy(who: str) -> str:
        return f"another extract is writing {cache} ({who}); wait until it ends, or name another output"

    try:
        with locked(sibling(cache, "lock"), busy):
            yield
    except NoLocksError as error:
        raise EmbedcacheError(
            f"{error}, so two writers could mix; write the cache on a local disk and copy it"
        ) from None
