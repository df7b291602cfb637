"""The one pass: read the table, find what is new, let the encoder fill the cache; continue where a killed run stopped.

A first run writes under the final name from the start. A later run with another table builds a new file next to the old
cache (``.NAME.new``), which replaces it when it is complete; if that run is killed, the next one continues its file.
Vectors are found by the hash of their text, so a text that has a vector is never encoded again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache.create import Writer, make_contents
from embedcache.cache.file import Cache
from embedcache.cache.fill import Filler
from embedcache.cache.labels import unlabelled
from embedcache.cache.layout import STORES, Output
from embedcache.cache.lock import writer_lock
from embedcache.cache.map_file import file_id, remove_mapped
from embedcache.cache.notes import rounding_notes
from embedcache.cache.state_files import index_path
from embedcache.cache.state_writer import check_space
from embedcache.cache.strings import first_rows
from embedcache.cache.tokens import reading_of
from embedcache.common.display import html_table
from embedcache.common.progress import Progress, Tell, no_tell
from embedcache.common.reading import Reading
from embedcache.common.whole_file import refuse_stream
from embedcache.encoder.folder import DTYPES
from embedcache.errors import EmbedcacheError
from embedcache.extraction.before import WorkFile, another_encoder, clear, count_dropped, made_by, open_old
from embedcache.extraction.columns import Asked, choose_columns
from embedcache.extraction.encoders import EncodingPass, Place
from embedcache.extraction.read_input import Collected, collect
from embedcache.extraction.shards import Shard, ShardOrigin, take_part
from embedcache.extraction.token_states import StatesPlan, filling, plan_states, remove_foreign
from embedcache.extraction.vectors import AskedVectors, choose
from embedcache.labelling.opened import carried_notes
from embedcache.tables.inputs import list_note, tables_of
from embedcache.tables.rows import read_rows
from embedcache.tables.stream import stored


@dataclass
class ExtractReport:
    """What one extract did. ``rows`` = ``encoded`` + ``reused`` + ``duplicates``.

    Attributes:
        cache: the file.
        rows: of the input, and so of the cache.
        encoded: texts that went through the encoder.
        reused: texts that did not, since all that is asked for them existed.
        duplicates: rows whose text is that of an earlier row.
        truncated: rows whose text is longer than max_length. blank: rows with an empty or all-blank text.
        missing_labels: rows without a label, for each label column.
        dropped: rows of the old cache whose text is no longer in the input.
        repaired: blocks whose bytes did not match their checksum and were encoded again.
        tokens: encoded, without padding.
        seconds: that the whole call took.
        tokenizer: which code tokenized: "native", or "library" and why; "" where nothing was encoded, or on a cluster.
        rows_per_second: encoded texts per second of encoding, 0 where nothing was encoded.
        encoder: source, identity and store dtype, as in the cache.
        shard: "I/N" where only part I of N was asked for; all counts are those of that part.
        reading: for all rows, tokens cut off and tokens unknown to the model, see ``common.reading.Reading``.
        notes: what the user should know, a sentence each.
        token_states: which exist now and which were made, see ``StatesPlan.report``; None: none are kept.
    """

    cache: str
    rows: int
    encoded: int
    reused: int
    duplicates: int
    truncated: int
    blank: int
    missing_labels: dict[str, int]
    dropped: int
    repaired: int
    tokens: int
    seconds: float
    rows_per_second: float
    encoder: dict[str, Any]
    tokenizer: str = ""
    shard: str | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    token_states: dict[str, Any] | None = None

    def _repr_html_(self) -> str:
        """For notebooks."""
        names = ("rows", "encoded", "reused", "duplicates", "truncated", "tokens", "seconds", "rows_per_second")
        return html_table(f"{self.cache}", names, [[getattr(self, name) for name in names]])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def extract(
    inputs: Any,
    cache: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = "bert-base-uncased",
    text: str = "text",
    labels: str | Sequence[str] | None = None,
    id: str | None = None,
    keep: str | Sequence[str] = (),
    max_length: int | None = None,
    chunk: bool | None = None,
    task: str | None = None,
    pooling: str | Sequence[str] = "auto",
    layers: int | Sequence[int] = (-1,),
    prompt: str | None = None,
    dims: int | None = None,
    force_dims: bool = False,
    dtype: str = "auto",
    store: str = "float16",
    device: str = "auto",
    workers: int | None = None,
    ray: str | None = None,
    batch_tokens: int | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    na: Sequence[str] | None = None,
    shard: str | Sequence[int] | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    tokens: int | None = None,
    progress: Progress | None = None,
    tell: Tell = no_tell,
) -> ExtractReport:
    """Encode every text of ``inputs`` once and store the vectors in the file ``cache``.

    Afterwards the cache has the rows of the input, in the same order. Poolings and layers that it already had stay.

    Args:
        inputs: one or several tables, read one after another: a path, an address that fsspec knows (hf://, s3://,
            https://), "-" (standard input, JSON lines), a DataFrame of pandas or polars, a ``datasets.Dataset``, a
            pyarrow Table, a dict of columns; or a list of texts.
        cache: the HDF5 file to make or to continue.
        model: the encoder's folder, or its name on the Hugging Face hub.
        text: the column of texts.
        labels: label columns; None means the column ``label`` where there is one.
        id: a column that names the rows.
        keep: other columns to store. Columns that the cache already has stay if the input has them.
        max_length: the most tokens of a text, special tokens included; longer texts are cut. None is what the cache
            was made with, or what the model's authors say of its ``model`` vectors, else 250.
        chunk: read a longer text in chunks of max_length tokens; its vector is the mean of theirs. None is what the
            cache was made with, else no.
        task: merge the model's adapter for this task (a subfolder of that name) into its weights. None is what the
            cache was made with, else none.
        na: label cells that mean "not labelled", in addition to empty ones. "default" among them adds those of
            ``tables.rows.MISSING_LABELS``. None means these defaults only.
        pooling: one or several of ``encoder.poolings``, or "model": the vector that the model's authors prescribe, as
            ``SentenceTransformer(model).encode`` gives it. "auto" is what the cache has; for a new one "model" and
            "cls", or "cls" alone where the model's folder prescribes nothing (it has no modules.json).
        layers: one or several; -1 is the last. Every pooling is stored for every layer, "model" for the last only.
        prompt: put before every text: the name of one of the model's prompts, or a text. None is what the cache was
            made with, or the model's default prompt where "model" vectors are made.
        dims: cut the "model" vectors to their first dimensions, then normalize them (Matryoshka models).
        force_dims: cut them even if the model does not declare these dimensions.
        dtype: what the encoder computes in; "auto" is what the cache was made with, else what suits the device.
        store: "float16", "float32" or "int8" (with a scale for each row), the type of the stored vectors.
        device: "auto", "cpu", "cuda", "cuda:N"; several GPUs as "cuda:0,cuda:1" or "cuda:all".
        workers: the number of Ray processes that encode; by default one per GPU, or per 16 cores without a GPU.
        ray: "local", or the address of a Ray cluster; None is "local" if ``workers`` is set.
        batch_tokens: padded tokens in one forward pass; by default what suits the device.
        encoding: of text files.
        separator: of .csv and .tsv files; None detects it for each file.
        sheet: the sheet of workbooks; None means the first.
        shard: "I/N" or (I, N): only part I of N of the rows; ``merge`` joins the caches of all parts.
        overwrite: replace a cache of another encoder or other texts. Vectors that are still valid are reused.
        trust_remote_code: whether Python code that comes with the model may run.
        tokens: also keep, in files next to the cache, the vectors of all tokens that the last ``tokens`` layers read,
            so that these layers can be tuned later. None keeps the states that the cache has, and adds those of new
            texts.
        progress: called as ``progress(done_tokens, total_tokens, done_texts)`` while encoding; the total is estimated.
        tell: called with a sentence on the disk space for token states, before they are made.

    Raises:
        EmbedcacheError: bad input, a cache of another encoder, no disk space, another writer. Existing files stay
            unchanged.
    """
    started = time.perf_counter()
    refuse_stream(os.fspath(cache), "a cache", "file")
    target = Path(os.path.realpath(cache))
    given = tables_of(inputs, text)
    copies = ExitStack()  # copies of streams; unnamed files, which the system deletes in any case
    paths = [copies.enter_context(stored(table)) for table in given]
    reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "sheet": sheet}
    asked_for = Asked(text, labels, id, (keep,) if isinstance(keep, str) else tuple(keep))
    columns, column_notes = choose_columns(paths, asked_for, None if overwrite else target, na, reading)
    rows = read_rows(paths, columns, **reading)
    if store not in STORES:
        raise EmbedcacheError(f"unknown store type {store!r}: use {', '.join(STORES[:-1])} or {STORES[-1]}")
    vectors = AskedVectors(pooling, layers, prompt, dims, force_dims, max_length, chunk, task)
    vectors.poolings(), vectors.numbers()
    wanted = None if shard is None else Shard.parse(shard)
    with copies, writer_lock(target), ExitStack() as ends:
        clear(target)
        old = open_old(target, overwrite)
        chosen = choose(os.fspath(model), vectors, None if overwrite else old, trust_remote_code)
        settings = {**chosen.settings, "dtype": dtype, "trust_remote_code": trust_remote_code}
        if old and dtype == "auto" and not overwrite:
            made_in = old.encoder["identity"].get("compute_dtype")
            settings["dtype"] = made_in if made_in in DTYPES else dtype  # the attribute may be damaged
        if old and not overwrite:
            settings["kept"] = old.encoder["identity"].get("kept", ())  # of int8, chosen when it was made
        encoding_pass = EncodingPass(
            os.fspath(model), settings, Place(device, workers, ray), store, batch_tokens, progress
        )
        ends.callback(encoding_pass.close)
        same = old if old and made_by(old, encoding_pass.encoder) else None
        if old and not same and not overwrite:
            raise another_encoder(old, encoding_pass.encoder)
        table, part, guests = collect(rows, columns, target.parent), None, None
        if not same:
            encoding_pass.measure_int8(table.first_texts())
        if wanted:
            table, part, guests = take_part(table, wanted, target.parent)
        if tokens is not None or index_path(target).exists():
            ends.enter_context(writer_lock(index_path(target)))
        dropped = count_dropped(old, table, overwrite)
        if old and not same:
            old.close()
        outputs = chosen.outputs if overwrite or not same else list(dict.fromkeys([*same.outputs, *chosen.outputs]))
        first = first_rows(table.hashes)
        plan = plan_states(target, table, first, tokens, encoding_pass, overwrite)
        if plan is not None and plan.lacking.any():
            tell(plan.line())
        filler, repaired, read = _build(target, same, table, first, outputs, encoding_pass, part, guests, plan)
        rounded = [] if same else _rounding(target)
        carried = [] if wanted else carried_notes(target)
    texts = int(np.count_nonzero(first == np.arange(len(first))))
    encoded = int(np.count_nonzero(filler.encoded))
    return ExtractReport(
        cache=str(cache),
        rows=len(table.hashes),
        encoded=encoded,
        reused=texts - encoded,
        duplicates=len(table.hashes) - texts,
        truncated=read.truncated,
        blank=table.blank,
        missing_labels={name: int(unlabelled(codes).sum()) for name, (codes, _) in table.labels.items()},
        dropped=dropped,
        repaired=repaired,
        tokens=encoding_pass.tokens,
        seconds=time.perf_counter() - started,
        rows_per_second=encoded / encoding_pass.seconds if encoding_pass.seconds else 0.0,
        encoder=encoding_pass.encoder,
        tokenizer=encoding_pass.tokenized_by,
        shard=str(wanted) if wanted else None,
        reading=read.to_dict(),
        notes=[
            *list_note(given),
            *column_notes,
            *table.label_notes(),
            *read.notes(),
            *chosen.notes,
            *encoding_pass.notes(),
            *rounded,
            *carried,
        ],
        token_states=plan.report(filler.states) if plan and filler.states else None,
    )


def _rounding(target: Path) -> list[str]:
    with Cache(target) as made:
        return rounding_notes(made)


def _build(
    target: Path,
    same: Cache | None,
    table: Collected,
    first: np.ndarray,
    outputs: list[Output],
    encoding_pass: EncodingPass,
    part: ShardOrigin | None,
    guests: np.ndarray | None,
    plan: StatesPlan | None,
) -> tuple[Filler, int, Reading]:
    """Continue the target or the file that a killed run left next to it, or start a new one; fill and publish it.

    Returns:
        (the filler, the number of damaged blocks that were made again, how much of the texts was read).
    """
    there = same.outputs if same else ()
    widths = {one: same.width(one) if same and one in there else encoding_pass.encoders.width(one) for one in outputs}
    contents = make_contents(
        table.hashes, table.texts, table.labels, table.columns, encoding_pass.encoder, widths, table.id_column,
        text_column=table.text_column, counted=True, positions=encoding_pass.positions,
    )  # fmt: skip
    if part:
        contents.layout.attrs.update(part.attributes())
    work = WorkFile.find(target, same, contents, encoding_pass.encoder)
    if plan is not None:
        check_space(target, plan.needed, plan.needed + (0 if work.begun else contents.bytes))
    repaired = work.create(contents, same)
    with Writer(work.path) as writer:
        others = [cache for cache in (same, work.left) if cache and cache.inode != writer.cache.inode]
        filler = None
        try:
            with filling(plan) as states:
                filler = Filler(writer, first, others, guests=guests, states=states)
                encoding_pass.fill(filler)
        except BaseException as error:
            new = work.inode is None or not work.begun
            if new and not writer.started and file_id(work.path) == writer.cache.inode:
                filler = None
                writer.close()
                remove_mapped(work.path, error)  # nothing to continue, and the next run may have other settings
            raise
        writer.sync()
        writer.check()
        reading = reading_of(writer.cache)
        work.check("extract")
    work.publish(same)
    if plan is None:
        remove_foreign(target, encoding_pass.encoder)
    work.clear()
    return filler, repaired + filler.damaged, reading
