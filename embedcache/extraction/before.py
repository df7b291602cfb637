"""What an earlier run left at the place of a cache: the old cache, a file that a killed run began, its remains."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.cache.checksums import count_damaged
from embedcache.cache.create import CacheContents, create, matches, publish
from embedcache.cache.file import Cache
from embedcache.cache.fingerprint import comparable, differences, for_pooling
from embedcache.cache.hdf5_structure import DamagedCacheError
from embedcache.cache.layout import sibling
from embedcache.cache.map_file import FileId, file_id
from embedcache.cache.reuse import count_unknown, proves_encoder
from embedcache.cache.state_files import index_path
from embedcache.common.encoder_schema import imported_name
from embedcache.encoder.poolings import MODEL
from embedcache.errors import EmbedcacheError
from embedcache.extraction.read_input import Collected


def clear(target: Path) -> None:
    """Remove files of a killed run that cannot be used."""
    for path in (target, index_path(target)):
        sibling(path, "tmp").unlink(missing_ok=True)
    sibling(target, "left").unlink(missing_ok=True)
    for path in (target, sibling(target, "new")):
        shutil.rmtree(sibling(path, "ray"), ignore_errors=True)


def open_old(target: Path, overwrite: bool) -> Cache | None:
    """The cache to continue; None where there is none, or with ``overwrite`` where it is too damaged to read."""
    if not target.exists():
        return None
    try:
        return Cache(target)
    except DamagedCacheError:
        if not overwrite:
            raise
        return None


def made_by(cache: Cache, encoder: dict[str, Any]) -> bool:
    return comparable(cache.encoder, encoder) or (not cache.sealed and proves_encoder(cache, encoder))


def open_left(path: Path, encoder: dict[str, Any]) -> Cache | None:
    """The file that a killed run left next to the target, if it can be used."""
    try:
        cache = Cache(path)
    except EmbedcacheError:
        return None
    return cache if made_by(cache, encoder) else None


@dataclass(frozen=True)
class WorkFile:
    """Where the new cache is made: in the target's place, or beside it until it is whole.

    Attributes:
        target: the cache.
        inode: which file it was at the start, see ``file_id``; None where there was none.
        left: what a killed run left beside it, of the same encoder.
        path: the file to fill.
        begun: whether it is there already, with these contents.
    """

    target: Path
    inode: FileId | None
    left: Cache | None
    path: Path
    begun: bool

    @classmethod
    def find(cls, target: Path, same: Cache | None, contents: CacheContents, encoder: dict[str, Any]) -> WorkFile:
        """The target or the file that a killed run left next to it, if it can be continued; else a new one.

        Args:
            target: the cache.
            same: the cache that is there, if it is of the same encoder.
            contents: all of the new one but its vectors.
            encoder: its description.
        """
        inode, beside = file_id(target), sibling(target, "new")
        left = open_left(beside, encoder)
        found = target if same and matches(same, contents) else beside if left and matches(left, contents) else None
        if left and found != beside:  # out of the way of the new one: Windows replaces no file that is open
            left.close()
            left = Cache(beside.replace(sibling(target, "left")))
        return cls(target, inode, left, found or (target if inode is None else beside), found is not None)

    def create(self, contents: CacheContents, same: Cache | None) -> int:
        """Make the file where there is none to continue. Returns how many damaged blocks of ``same`` it replaces."""
        if self.begun:
            return 0
        create(self.path, contents, sibling(self.target, "tmp"))
        return count_damaged(same) if same else 0

    def check(self, command: str) -> None:
        """Raise EmbedcacheError where another process has put its own file into the target's place."""
        if self.path != self.target and file_id(self.target) not in (self.inode, None):
            raise EmbedcacheError(
                f"{self.target} was replaced during this run; run the same {command} again, nothing is lost"
            )

    def publish(self, old: Cache | None) -> None:
        """Into the target's place. Closes the old cache first: Windows replaces no file that is open."""
        for cache in (old, self.left):
            if cache is not None:
                cache.close()
        if self.path == self.target:
            return
        try:
            publish(self.path, self.target)
        except PermissionError as error:
            raise EmbedcacheError(
                f"cannot replace {self.target}: {error.strerror}; the new cache is whole beside it: run the same "
                "command again, and it takes that place"
            ) from None

    def clear(self) -> None:
        """Remove what a killed run left."""
        for what in ("new", "left"):
            sibling(self.target, what).unlink(missing_ok=True)


def another_encoder(old: Cache, encoder: dict[str, Any]) -> EmbedcacheError:
    if not old.sealed:
        return DamagedCacheError(f"{old.path}: its attributes are damaged; --overwrite makes it again from the input")
    was, now = imported_name(old.encoder), imported_name(encoder)
    if (was is None) != (now is None):
        made = [
            f"vectors that were imported ({was or now})",
            f"those of {encoder['source'] if was else old.encoder['source']}",
        ]
        held, asked = made if was else made[::-1]
        return EmbedcacheError(
            f"{old.path} holds {held}, not {asked}: pass --overwrite to replace it, or another -o to keep both"
        )
    if was is not None and old.encoder["store"] == encoder["store"]:
        return EmbedcacheError(
            f"{old.path} holds other imported vectors ({was}, not {now}): name both alike with --encoder if one "
            "encoder made them, pass --overwrite to replace the cache, or another -o to keep both"
        )
    both = [MODEL] if MODEL in old.encoder else []
    differ = differences(for_pooling(old.encoder, *both), for_pooling(encoder, *both))
    return EmbedcacheError(
        f"{old.path} was made with another encoder or other settings: {differ}; "
        "pass --overwrite to replace it, or another -o to keep both"
    )


def count_dropped(old: Cache | None, table: Collected, overwrite: bool) -> int:
    """The number of rows of the old cache whose text is no longer in the input."""
    if not old or not old.rows:
        return 0
    dropped = count_unknown(old.hashes, table.hashes)
    if dropped == old.rows and not overwrite:
        raise EmbedcacheError(
            f"none of the {dropped:,} texts in {old.path} is in the input: check that it is the right file; "
            "pass --overwrite to replace the cache, or another -o to keep both"
        )
    return dropped
