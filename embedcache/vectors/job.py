"""Vectors that exist, from anywhere, into a cache like any other."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache.create import make_contents
from embedcache.cache.file import Cache
from embedcache.cache.labels import unlabelled
from embedcache.cache.layout import STORES
from embedcache.cache.lock import writer_lock
from embedcache.cache.notes import rounding_notes
from embedcache.cache.strings import first_rows
from embedcache.common.progress import Progress
from embedcache.common.whole_file import refuse_stream
from embedcache.encoder.poolings import MODEL
from embedcache.errors import EmbedcacheError
from embedcache.extraction.before import another_encoder, clear, count_dropped, made_by, open_old
from embedcache.extraction.job import ExtractReport
from embedcache.labelling.opened import carried_notes
from embedcache.tables.inputs import tables_of
from embedcache.tables.stream import stored
from embedcache.vectors.fill import build
from embedcache.vectors.formats.base import VectorFile
from embedcache.vectors.join import AskedColumns, collect_rows
from embedcache.vectors.read import Scanned, open_vectors, scan

AUTO = "auto"


def import_vectors(
    vectors: Any,
    cache: str | os.PathLike[str],
    *,
    table: Any = None,
    vector: str | None = None,
    text: str | None = None,
    labels: str | Sequence[str] | None = None,
    id: str | None = None,
    keep: str | Sequence[str] = (),
    encoder: str | None = None,
    store: str = AUTO,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    na: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExtractReport:
    """Store vectors that were made elsewhere in the file ``cache``, with the texts and labels of their rows.

    The cache is one like any other, in the order of the vectors; they are called ``model``. Memory does not grow with
    their number. A killed run is continued by the same call.

    Args:
        vectors: an array [N, D], a table in memory, or one or several files, read one after another; see
            ``vectors.formats``.
        cache: the HDF5 file to make or to continue.
        table: a table with the texts and labels of the rows, as ``extract`` takes it; None: the vectors' own file.
            It has the same rows in the same order, or ``id`` is a column of both.
        vector: which array or column has the vectors; None: the only one, or the one called embedding.
        text: the column of texts; None: ``text`` where there is one. Without texts, a row's id or number stands for it.
        labels: label columns; None means the column ``label`` where there is one.
        id: a column that names the rows.
        keep: other columns to store.
        encoder: the name of what made the vectors. Vectors of one name count as comparable, such as those of new texts
            to predict. None: as the file says, else they are comparable with no others.
        store: "float16", "float32" or "int8"; "auto" is what the cache has, else float16 where all vectors are, else
            float32.
        encoding: of text files.
        separator: of .csv and .tsv files; None detects it.
        sheet: of workbooks; None means the first.
        na: see ``extract``.
        overwrite: replace a cache of another encoder or of other texts.
        progress: called as ``progress(done, total, done)``, in rows.

    Returns:
        As ``extract``; nothing is encoded, so that rows are ``reused`` or ``duplicates`` (of a text that an earlier row
        has, with a vector of its own).

    Raises:
        EmbedcacheError: bad input, a cache of another encoder, no disk space, another writer. Existing files stay
            unchanged.
    """
    started = time.perf_counter()
    refuse_stream(os.fspath(cache), "a cache", "file")
    target = Path(os.path.realpath(cache))
    if store not in (AUTO, *STORES):
        raise EmbedcacheError(f"unknown store type {store!r}: use auto, {', '.join(STORES[:-1])} or {STORES[-1]}")
    if encoder is not None and not encoder.strip():
        raise EmbedcacheError("the encoder's name is blank: write one, or leave --encoder out")
    reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "sheet": sheet}
    with ExitStack() as ends:
        files = [
            open_vectors(one, vector, encoding=encoding)
            for one in (ends.enter_context(_stored(each)) for each in _several(vectors))
        ]
        if not files:
            raise EmbedcacheError("no vectors: name at least one file")
        tables = [] if table is None else [ends.enter_context(stored(one)) for one in tables_of(table, text or "text")]
        found = scan(files)
        asked = AskedColumns(text, labels, id, (keep,) if isinstance(keep, str) else tuple(keep))
        ends.enter_context(writer_lock(target))
        clear(target)
        old = open_old(target, overwrite)
        about = _describe(encoder, files, found, store, None if overwrite else old)
        same = old if old and made_by(old, about) else None
        if old and not same and not overwrite:
            raise another_encoder(old, about)
        rows, notes = collect_rows(
            files, found.rows, tables, asked, None if overwrite else target, na, reading, target.parent
        )
        dropped = count_dropped(old, rows, overwrite)
        if old and not same:
            old.close()
        contents = make_contents(
            rows.hashes,
            rows.texts,
            rows.labels,
            rows.columns,
            about,
            {(MODEL, -1): found.dim},
            rows.id_column,
            text_column=rows.text_column,
        )
        repaired = build(target, same, contents, about, files, found.rows, progress)
        with Cache(target) as made:
            rounded = [] if same else rounding_notes(made)
        carried = carried_notes(target)
    first = first_rows(rows.hashes)
    total = len(first)
    texts = int(np.count_nonzero(first == np.arange(total)))
    seconds = time.perf_counter() - started
    return ExtractReport(
        cache=str(cache),
        rows=total,
        encoded=0,
        reused=texts,
        duplicates=total - texts,
        truncated=0,
        blank=rows.blank,
        missing_labels={name: int(unlabelled(codes).sum()) for name, (codes, _) in rows.labels.items()},
        dropped=dropped,
        repaired=repaired,
        tokens=0,
        seconds=seconds,
        rows_per_second=total / seconds,
        encoder=about,
        notes=[*_chosen(about, files, found, encoder), *notes, *rows.label_notes(), *rounded, *carried],
    )


def _several(vectors: Any) -> list[Any]:
    """Files, or one array or table in memory."""
    if isinstance(vectors, (list, tuple)) and all(isinstance(one, (str, os.PathLike)) for one in vectors):
        return [one for each in vectors for one in tables_of(each)]
    return [vectors] if _is_array(vectors) else tables_of(vectors)


def _stored(given: Any) -> Any:
    return nullcontext(given) if _is_array(given) else stored(given)


def _is_array(given: Any) -> bool:
    return hasattr(given, "ndim") and not hasattr(given, "columns")


def _describe(
    name: str | None, files: Sequence[VectorFile], found: Scanned, store: str, old: Cache | None
) -> dict[str, Any]:
    """The encoder's description in the cache.

    Its identity, which decides what is comparable, is a name that the user or the file gives, else the digest of the
    vectors. Beside it stands which numbers these are: a run that continues must not mix two versions of a file.
    """
    said = {file.encoder for file in files}
    if name is None and len(said) == 1:
        name = said.pop()
    if name is None and len(said) > 1:
        raise EmbedcacheError(
            f"the files are of several models ({', '.join(sorted(map(str, said)))}): import each into a cache of its "
            "own, or name them alike with --encoder"
        )
    known = old.encoder["store"] if old is not None else found.dtype
    source = name or Path(files[0].name).name
    return {
        "source": source,
        "identity": {"imported": name or found.digest},
        "store": known if store == AUTO else store,
        "import": {"files": [Path(file.name).name for file in files], "digest": found.digest},
    }


def _chosen(about: dict[str, Any], files: Sequence[VectorFile], found: Scanned, named: str | None) -> list[str]:
    """What was chosen and why, a sentence each."""
    notes = []
    column = f"{files[0].column} of {files[0].name}" if files[0].column else files[0].name
    stored_as = f"stored as {about['store']}" + (", rounded from float64" if found.wide else "")
    notes.append(f"the vectors are {column}, {found.dim} numbers each, {stored_as}")
    if about["identity"]["imported"] == found.digest:
        notes.append("--encoder NAME says what made them, so that vectors of other files count as comparable")
    elif named is None:
        notes.append(f"the encoder is {about['source']}, as {files[0].name} says")
    if found.zero:
        notes.append(f"{found.zero:,} of the vectors are all zeros: no search finds these rows")
    return notes
