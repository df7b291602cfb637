"""The index file: sections of bytes, then a JSON footer that says what they are, with a checksum of each.

    "embedcache index\\n" | sections | footer (JSON, UTF-8) | length of the footer, 8 bytes | its BLAKE2b, 16 bytes

Nothing is given to FAISS before its checksum was verified, since FAISS trusts what it reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.layout import BLOCK_ROWS
from embedcache.common.checked import SchemaError, conform, parse_json
from embedcache.common.int8_rows import Matrix
from embedcache.common.outputs import Layer, parts_of
from embedcache.common.whole_file import Output, whole_binary
from embedcache.errors import EmbedcacheError
from embedcache.index.schema import Footer

MAGIC = b"embedcache index\n"
FORMAT_VERSION = 2  # 1 was a bare FAISS file with a .json beside it
TAIL = 8 + 16
MOST_FOOTER = 64 << 20  # bytes; a real one has some thousands


class SpoiltError(Exception):
    """The file is not an index, or is damaged."""


@dataclass
class About:
    """What an index is, as its footer says.

    Attributes:
        cache: path of the cache, relative to the index's folder; None where it came from vectors alone.
        digest: of the rows and vectors that it holds, see ``rows_digest``.
        trained_rows: how many rows there were when it was built, before any were added.
        recall: recall@10 as asked, measured: as found, on ``held_out`` rows; both 1 for exact.
        parameters: of the kind, and those that were tuned.
        seconds: of building, without the measuring.
    """

    kind: str
    rows: int
    dim: int
    pooling: str = "cls"
    layer: int = -1
    center: bool = False
    encoder: dict[str, Any] | None = None
    cache: str | None = None
    fingerprint: str | None = None
    digest: str | None = None
    trained_rows: int = 0
    asked: float = 1.0
    measured: float = 1.0
    held_out: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def rows_digest(cache: Cache, pooling: str, layer: Layer, rows: int) -> str:
    """Hex digest of the first ``rows`` rows of a cache: of their texts' hashes and their vectors.

    The cache's checksums of whole blocks bind both (cache/checksums.py); of the rows after them the bytes are read.
    """
    whole = rows // BLOCK_ROWS
    state = blake2b(digest_size=16)
    for part in parts_of(pooling, layer):
        path = cache.output_paths[part]
        state.update(np.ascontiguousarray(cache.checksums(path)[:whole]).data)
        for array in (cache.hashes, *map(cache.array, cache.vector_datasets(path))):
            state.update(np.ascontiguousarray(array[whole * BLOCK_ROWS : rows]).data)
    return state.hexdigest()


def write(place: str | Path | Output, about: About, sections: dict[str, Callable[[BinaryIO], None]]) -> int:
    """Write a new file and give it its name only once it is whole; returns its bytes.

    Raises:
        EmbedcacheError: it cannot be written there.
    """
    try:
        with whole_binary(place) as file:
            hashed = _Hashed(file)
            hashed.write(MAGIC)
            places = {}
            for section, put in sections.items():
                start = hashed.begin()
                put(hashed)  # type: ignore[arg-type]
                places[section] = [start, hashed.position - start, hashed.state.hexdigest()]
            head = {"format": "embedcache-index", "format_version": FORMAT_VERSION}
            footer = json.dumps({**head, **asdict(about), "sections": places}).encode()
            digest = blake2b(footer, digest_size=16).digest()
            file.write(footer + len(footer).to_bytes(8, "little") + digest)
            return hashed.position + len(footer) + TAIL
    except RuntimeError as error:  # FAISS's, for what its writer raised
        name = place.name if isinstance(place, Output) else str(place)
        raise EmbedcacheError(f"cannot write the index {name}: {error}: check the folder and the disk") from None


class _Hashed:
    """Counts and digests what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.position, self.state = file, 0, blake2b(digest_size=16)

    def begin(self) -> int:
        self.state = blake2b(digest_size=16)
        return self.position

    def write(self, data: Any) -> int:
        self.file.write(data)
        self.state.update(data)
        self.position += memoryview(data).nbytes
        return memoryview(data).nbytes


def read(path: Path, *, to_replace: bool = False) -> tuple[About, dict[str, np.ndarray]]:
    """The footer, and each section as uint8 [bytes], a memory map whose checksum is right.

    Args:
        path: the file.
        to_replace: it will be written anew: Windows replaces no file that is mapped, so there it is read into memory.

    Raises:
        EmbedcacheError: there is no such file, or it cannot be read.
        SpoiltError: it is not an index of this version, or is damaged.
    """
    try:
        if not path.is_file():
            raise EmbedcacheError(f"{path}: no such file: embedcache index makes one")
        mapped = path.stat().st_size and not (to_replace and sys.platform == "win32")
        data = np.memmap(path, np.uint8, "r") if mapped else np.fromfile(path, np.uint8)
    except OSError as error:
        raise EmbedcacheError(f"cannot read {path}: {error.strerror or error}; check its permissions") from None
    footer = _footer(data)
    try:
        places = footer.pop("sections")
        about = About(**{one.name: footer[one.name] for one in fields(About)})
        sections = {name: _section(data, *place) for name, place in places.items()}
    except ValueError as error:
        raise SpoiltError(str(error)) from None
    return about, sections


def _footer(data: np.ndarray) -> dict[str, Any]:
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise SpoiltError("it does not begin like one")
    size = int.from_bytes(bytes(data[-TAIL:-16]), "little")
    if not 0 < size <= min(MOST_FOOTER, data.size - len(MAGIC) - TAIL):
        raise SpoiltError("it is cut short")
    text = bytes(data[data.size - TAIL - size : data.size - TAIL])
    if blake2b(text, digest_size=16).digest() != bytes(data[-16:]):
        raise SpoiltError("the checksum of its footer is wrong")
    try:
        footer: dict[str, Any] = parse_json(text)
        version = conform(footer.get("format_version") if isinstance(footer, dict) else None, int, "format_version")
        if version != FORMAT_VERSION:
            raise SpoiltError(f"it is of format {version}, not {FORMAT_VERSION}")
        conform(footer, Footer)
    except SchemaError as error:
        raise SpoiltError(f"its footer is invalid: {error}") from None
    return footer


def _section(data: np.ndarray, start: int, size: int, digest: str) -> np.ndarray:
    if not 0 <= start <= start + size <= data.size:
        raise ValueError("a section lies outside")
    section = data[start : start + size]
    state = blake2b(digest_size=16)
    for chunk in range(0, size, 1 << 24):
        state.update(section[chunk : chunk + (1 << 24)].data)
    if state.hexdigest() != digest:
        raise ValueError("the checksum of a section is wrong")
    return section


def put_array(array: Matrix) -> Callable[[BinaryIO], None]:
    """A section's bytes."""

    def put(file: BinaryIO) -> None:
        for start in range(0, max(len(array), 1), 1 << 16):
            file.write(np.ascontiguousarray(array[start : start + (1 << 16)]).view(np.uint8).data)

    return put


def take_array(section: np.ndarray, dtype: Any, *shape: int) -> np.ndarray:
    """What ``put_array`` wrote."""
    if section.size != np.dtype(dtype).itemsize * int(np.prod([int(n) for n in shape], dtype=object)):
        raise SpoiltError("a section has another size")
    return section.view(dtype).reshape(shape)
