"""The job of `embedcache index`: build a cache's index file, or bring one up to date."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.cache import Cache, open_cache
from embedcache.common.int8_rows import part_of
from embedcache.common.progress import Progress
from embedcache.common.whole_file import Output, open_output, refuse_stream
from embedcache.errors import EmbedcacheError
from embedcache.index import file_format
from embedcache.index.build import Planned, can_extend, extend, gpu_of, on_device, restored
from embedcache.index.exact import StoredRows
from embedcache.index.file_format import About, SpoiltError
from embedcache.index.ownership import default_path, other_cache
from embedcache.index.plan import EXACT_ROWS, choose
from embedcache.index.search_index import SearchIndex, stored_output


@dataclass(frozen=True)
class IndexReport:
    """What index_cache did.

    Attributes:
        index, cache: the files. bytes: of the index file.
        action: "built", "extended" (by ``added`` rows), or "kept": it was up to date.
        recall: recall@10 ``asked``, ``measured`` on ``held_out`` rows against exact search.
        reached: whether what was measured is no less than what was asked.
        seconds: in all; build_seconds: of making the index, without measuring and tuning it.
    """

    index: str
    cache: str
    action: str
    kind: str
    rows: int
    added: int
    dim: int
    pooling: str
    layer: int
    center: bool
    recall: dict[str, float]
    reached: bool
    held_out: int
    parameters: dict[str, Any]
    seconds: float
    build_seconds: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


def index_cache(
    cache: str | Path,
    output: str | Path | None = None,
    *,
    pooling: str | None = None,
    layer: int | None = None,
    kind: str = "auto",
    recall: float = 0.99,
    center: bool | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    planned: Planned | None = None,
) -> IndexReport:
    """Write the index of a cache's vectors; rows that were added to the cache since are added to an index that fits.

    Args:
        cache: a cache file that ``extract`` made.
        output: the index file; None means beside the cache, reviews.h5 -> reviews.index.
        pooling: which vectors; None means model, else cls, else the first stored.
        layer: which vectors; None means the last layer, or the only one stored.
        kind: "auto", or a kind of index that docs/search.md lists.
        recall: the recall@10 to reach, above 0 to 1, as measured on 1,000 of the rows; 1 means exact.
        center: take the mean of all rows off first; None means as the index that is there has it, else False.
        device: "auto" (a GPU if FAISS finds one), "cpu" or "cuda[:N]".
        progress: called with (thousandths done, 1000, rows done).
        planned: called with the ``Plan`` before anything is built.

    Returns:
        What was done: built, extended by the new rows, or kept.

    Raises:
        EmbedcacheError: the cache cannot be opened or is not complete; the kind does not fit the memory; ``output`` is
            another file or cannot be written.
    """
    start = time.perf_counter()
    choose(1, 1, kind=kind, recall=recall)  # reports what is wrong with these first
    with open_cache(cache) as opened, ExitStack() as ends:
        path = Path(default_path(opened.path) if output is None else output)
        refuse_stream(path, "an index", "file")
        if not path.parent.is_dir():
            raise EmbedcacheError(f"cannot write the index {path}: there is no folder {path.parent}: make it first")
        place: list[Output] = []

        def claim() -> None:
            """Taken before the long work, so that no two do it at once; an up-to-date index needs no lock."""
            if before is not None and (other := other_cache(before[0], path, opened)):
                raise EmbedcacheError(
                    f"{path} is the index of another cache, {other}: name another file with -o, or remove it"
                )
            place.append(ends.enter_context(open_output(path)))

        before, vectors = _before(path), stored_output(opened, pooling, layer)
        asked: dict[str, Any] = {"kind": kind, "recall": recall, "device": device, "progress": progress}
        index = action = None
        if before is not None:
            center = before[0].center if center is None else center
            action, index = _up_to_date(opened, before, vectors, bool(center), claim, **asked)
        if index is None:
            if not place:
                claim()
            action, before = "built", None
            index = SearchIndex.build(opened, *vectors, center=bool(center), planned=planned, **asked)
        size = path.stat().st_size if action == "kept" else index.save(place[0])
        about, added = index.about, index.rows - (before[0].rows if before else 0)
        return IndexReport(
            index=str(path),
            cache=str(cache),
            action=str(action),
            recall={"asked": recall, "measured": about.measured},
            reached=about.measured >= recall,
            added=added,
            seconds=time.perf_counter() - start,
            build_seconds=about.seconds,
            bytes=size,
            **{name: getattr(about, name) for name in PRINTED},
        )


PRINTED = ("kind", "rows", "dim", "pooling", "layer", "center", "held_out", "parameters")


def _before(path: Path) -> tuple[About, dict[str, Any]] | None:
    """The index that is there; None where there is none, or one that is damaged.

    Raises:
        EmbedcacheError: what is there is not an index; it is not overwritten.
    """
    if not path.exists():
        return None
    with suppress(OSError):
        if path.is_dir() or not _ours(path):
            raise EmbedcacheError(f"{path} exists and is not an index: name another file with -o, or remove it")
    with suppress(SpoiltError):
        return file_format.read(path, to_replace=True)
    return None


def _ours(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(len(file_format.MAGIC))
    return head == file_format.MAGIC or head[:4] in (b"IxFI", b"")  # IxFI: FAISS's, of format 1


def _up_to_date(
    cache: Cache,
    before: tuple[About, dict[str, Any]],
    output: tuple[str, int],
    center: bool,
    claim: Callable[[], None],
    *,
    kind: str,
    recall: float,
    device: str,
    progress: Progress | None,
) -> tuple[str, SearchIndex | None]:
    """The index that is there, extended by the cache's new rows; None where it has to be built again."""
    about, sections = before
    same = (about.pooling, about.layer, about.center) == (*output, center) and kind in ("auto", about.kind)
    same = same and about.fingerprint == cache.fingerprint and about.rows <= cache.rows
    if not same or (about.asked != recall and about.kind != "exact") or (recall == 1 and about.measured < 1):
        return "", None
    if file_format.rows_digest(cache, *output, about.rows) != about.digest:
        return "", None
    outgrown = not can_extend(about, cache.rows) if about.kind != "exact" else cache.rows > EXACT_ROWS
    if about.rows < cache.rows and outgrown and (kind == "auto" or about.kind != "exact"):
        return "", None
    X = cache.embeddings(*output)
    try:
        mean = file_format.take_array(sections["mean"], "float32", about.dim) if center else None
        old = StoredRows(part_of(X, slice(about.rows)), mean)
        engine = restored(about, old, sections, "cpu")
    except (SpoiltError, KeyError, TypeError, ValueError):
        return "", None
    about.cache = str(cache.path)
    rows = StoredRows(X, mean)
    if about.rows == cache.rows:
        return "kept", SearchIndex(about, rows, engine, own_vectors=False)
    claim()
    if about.kind == "exact":
        changed: dict[str, Any] = {"rows": len(rows), "asked": recall}
        engine = restored(About(**{**vars(about), **changed}), rows, sections, device)
    else:
        engine.rows = rows
        changed = extend(engine, about, recall, progress)
        if kind == "auto" and changed.get("measured", about.measured) < recall:
            return "", None
        engine = on_device(engine, gpu_of(device))
    changed["digest"] = file_format.rows_digest(cache, *output, len(rows))
    return "extended", SearchIndex(About(**{**vars(about), **changed}), rows, engine, own_vectors=False)
