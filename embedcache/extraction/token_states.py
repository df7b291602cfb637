"""Find the texts that lack token states, and reserve space for them: tokens are counted before any state is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache.fingerprint import states_differences
from embedcache.cache.hdf5_structure import DamagedCacheError
from embedcache.cache.state_files import HEADER, StateFiles, StatesAbout, end_of, index_path, values_path
from embedcache.cache.state_writer import StateFill, StateWriter, make_states, place_texts, remove_states
from embedcache.cache.strings import Strings, first_rows
from embedcache.common.display import human_bytes
from embedcache.encoder.poolings import TOKEN_STATES
from embedcache.errors import EmbedcacheError
from embedcache.extraction.encoders import EncodingPass
from embedcache.extraction.read_input import Collected

INDEX_BYTES = 48  # per text in the index


@dataclass
class StatesPlan:
    """The token states that a table needs.

    Attributes:
        cache: the cache that their files are next to.
        about: the encoder and the layer that they are of.
        texts: the number of different texts in the table.
        tokens: of these texts.
        hashes, spans, checksums: of all texts that the files will have, see ``StateFiles``.
        slots: int64 [N], the index of each row's text among these.
        lacking: bool [N], see ``StateFill``.
        needed: the bytes that the files will grow by.
        grows: whether the files must be made or lengthened.
        replaces: whether other states are removed first.
        new: whether there were no states.
    """

    cache: Path
    about: StatesAbout
    texts: int
    tokens: int
    hashes: np.ndarray
    spans: np.ndarray
    checksums: np.ndarray
    slots: np.ndarray
    lacking: np.ndarray
    needed: int
    grows: bool
    replaces: bool
    new: bool

    @property
    def bytes(self) -> int:
        """The size of the states of the table's texts."""
        return self.tokens * self.about.token_bytes

    def line(self) -> str:
        """A sentence on what is about to be made."""
        n, path = int(self.lacking.sum()), values_path(self.cache)
        return f"token states of {n:,} texts to make: {human_bytes(self.needed)} more in {path}"

    def reserve(self) -> StateFill:
        """Make or lengthen the files.

        Raises:
            EmbedcacheError: the disk is too full, or the files cannot be written.
        """
        if self.replaces:
            remove_states(self.cache)
        if self.grows:
            make_states(self.cache, self.about, self.hashes, self.spans, self.checksums)
        return StateFill(StateWriter(self.cache), self.slots, self.lacking)

    def report(self, fill: StateFill) -> dict[str, Any]:
        """What an extract reports about them."""
        made = int(self.lacking.sum())
        return {
            "layers": self.about.layers,
            "layer": self.about.layer,
            "dim": self.about.dim,
            "texts": self.texts,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "encoded": made,
            "reused": self.texts - made,
            "repaired": fill.damaged,
            "files": [str(index_path(self.cache)), str(values_path(self.cache))],
        }


def plan_states(
    cache: Path, table: Collected, first: np.ndarray, layers: int | None, encoding_pass: EncodingPass, overwrite: bool
) -> StatesPlan | None:
    """Plan the token states of a pass; None where none are kept.

    Args:
        cache: its path.
        table: the rows.
        first: int64 [N], for each row the first one with the same text.
        layers: keep what the last ``layers`` layers read; None: continue the states that the cache has, if any.
        encoding_pass: the encoder.
        overwrite: whether other states may be replaced.

    Raises:
        EmbedcacheError: the cache has other states and ``overwrite`` is off; another file is in their place; the
            encoder has no such states.
    """
    there = open_there(cache, layers)
    replaces = there is not None and _replaces(there, layers, encoding_pass.encoder, overwrite)
    if there is not None and replaces:
        there.close()
        there = None
    if there is None and layers is None:
        return None
    about = there.about if there else _new_about(encoding_pass, layers or 0)

    def lengths(rows: np.ndarray) -> np.ndarray:
        return encoding_pass.encoders.lengths(_Some(Strings(*table.texts), rows))

    unique = np.flatnonzero(first == np.arange(len(first)))
    return plan_texts(cache, table.hashes, first, unique, there, about, lengths, replaces)


def remove_foreign(cache: Path, encoder: dict[str, Any]) -> None:
    """Remove the states of an encoder that no longer is the cache's, because the cache was overwritten."""
    if index_path(cache).exists() and states_differences(StateFiles(cache).about.encoder, encoder):
        remove_states(cache)


def plan_texts(
    cache: Path,
    hashes: np.ndarray,
    first: np.ndarray,
    rows: np.ndarray,
    there: StateFiles | None,
    about: StatesAbout,
    lengths: Callable[[np.ndarray], np.ndarray],
    replaces: bool,
) -> StatesPlan:
    """Plan the states of some texts, in addition to those in the files.

    Args:
        cache: its path.
        hashes: uint8 [N, 16], of its rows.
        first: int64 [N], for each row the first one with the same text.
        rows: int64, ascending: the rows whose states are wanted, each the first one with its text.
        there: the files; None: there are none.
        about: the encoder and the layer that the states are of.
        lengths: takes rows, int64 [n], and returns the number of tokens of their texts, int64 [n].
        replaces: whether other files are removed first.
    """
    known = _Known.of(there) if there else _Known.nothing()
    slots = np.full(len(first), -1, np.int64)
    found = first_rows(known.hashes, hashes[rows])[len(known.hashes) :]
    slots[rows] = np.where(found < len(known.hashes), found, -1)
    lacking = np.zeros(len(first), bool)
    lacking[rows] = ~np.append(known.sound, False)[slots[rows]]
    new = rows[slots[rows] < 0]
    slots[new] = len(known.hashes) + np.arange(len(new))
    slots = slots[first]
    tokens = lengths(new) if len(new) else np.empty(0, np.int64)
    places = place_texts(tokens, new, end_of(known.spans), about.token_bytes)
    spans = np.concatenate([known.spans, np.stack([places, tokens], axis=1)])
    size = HEADER + end_of(spans) * about.token_bytes
    has = values_path(cache).stat().st_size if values_path(cache).exists() else 0
    return StatesPlan(
        cache=cache,
        about=about,
        texts=len(rows),
        tokens=int(spans[slots[rows], 1].sum()),
        hashes=np.concatenate([known.hashes, hashes[new]]),
        spans=spans,
        checksums=np.concatenate([known.checksums, np.zeros((len(new), 16), np.uint8)]),
        slots=slots,
        lacking=lacking,
        needed=max(0, size - has) + INDEX_BYTES * len(spans),
        grows=bool(len(new)) or there is None or not there.sealed or not there.whole,
        replaces=replaces,
        new=there is None,
    )


@contextmanager
def filling(plan: StatesPlan | None) -> Iterator[StateFill | None]:
    """Make the files of a plan, and sync them in the end; new files are removed if nothing was written to them."""
    if plan is None:
        yield None
        return
    fill = plan.reserve()
    with fill.writer as writer:
        try:
            yield fill
            writer.sync()
            writer.check()
        except BaseException as error:
            if plan.new and not writer.started:
                writer.close()
                remove_states(plan.cache, error)
            raise


@dataclass
class _Known:
    """The texts that the files have. ``sound``: bool, whether a text's states match their checksum."""

    hashes: np.ndarray
    spans: np.ndarray
    checksums: np.ndarray
    sound: np.ndarray

    @classmethod
    def nothing(cls) -> _Known:
        return cls(
            np.empty((0, 16), np.uint8), np.empty((0, 2), np.int64), np.empty((0, 16), np.uint8), np.empty(0, bool)
        )

    @classmethod
    def of(cls, files: StateFiles) -> _Known:
        sound = files.sound()
        keep = np.ones(len(sound), bool) if files.sealed else sound  # a hash or a place may be damaged
        return cls(files.hashes[keep], files.spans[keep], files.checksums[keep], sound[keep])


class _Some(Sequence[str]):
    """Some of the texts, each read from the file when it is used."""

    def __init__(self, texts: Strings, rows: np.ndarray) -> None:
        self._texts, self._rows = texts, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self._texts[int(row)] for row in self._rows[at]]
        return self._texts[int(self._rows[at])]


def open_there(cache: Path, layers: int | None) -> StateFiles | None:
    """Open the files, if any. An index too damaged to read counts as none if states are asked for."""
    if not index_path(cache).exists():
        if layers is not None and (path := values_path(cache)).exists() and not _may_be_ours(path):
            raise EmbedcacheError(f"{path} is in the place of the token states, but is another file: move it away")
        return None
    try:
        return StateFiles(cache)
    except DamagedCacheError:
        if layers is None:
            raise
        return None


def _may_be_ours(path: Path) -> bool:
    """Whether a values file without an index is one that a killed run left."""
    with path.open("rb") as file:
        start = file.read(10)
    return start in (b"", bytes(10)) or (start[:6] == b"\x93NUMPY" and start[8:] == (HEADER - 10).to_bytes(2, "little"))


def _replaces(there: StateFiles, layers: int | None, encoder: dict[str, Any], overwrite: bool) -> bool:
    """Whether to remove the files, because they are of other layers or of another encoder."""
    about = there.about
    differ = states_differences(about.encoder, encoder)
    other = layers is not None and layers != about.layers
    if not differ and not other:
        return False
    if overwrite or (not there.sealed and layers is not None):
        return True
    if not there.sealed:
        raise DamagedCacheError(f"{there.path}: its attributes are damaged; run extract with --tokens K again")
    if differ:
        raise EmbedcacheError(
            f"{there.path} was made with another encoder or other settings: {differ}; pass --overwrite to replace it, "
            "or delete it"
        )
    serves = f"they serve the last {layers} too, since the layers between can be run; " if _fewer(layers, about) else ""
    raise EmbedcacheError(
        f"{there.path} has the token states for the last {about.layers} layers, not for {layers}: {serves}pass "
        "--overwrite to replace them"
    )


def _fewer(layers: int | None, about: StatesAbout) -> bool:
    return layers is not None and layers < about.layers


def _new_about(encoding_pass: EncodingPass, layers: int) -> StatesAbout:
    encoders, encoder = encoding_pass.encoders, encoding_pass.encoder
    layer = encoders.states_layer(layers)
    about = {"source": encoder["source"], "identity": encoder["identity"], "store": "float16"}
    return StatesAbout(about, layers, layer, encoders.width((TOKEN_STATES, layer)))
