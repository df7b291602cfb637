"""import and vectors: the commands that take vectors from other tools, and give them to these."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    NAMES,
    DerivedHelp,
    check_json,
    emit,
    formats_read,
    json_option,
    labels_option,
    pooling_option,
    reading_options,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import NumberInRange


def _vector_formats() -> str:
    from embedcache.vectors.formats import VECTOR_FORMATS

    *others, last = VECTOR_FORMATS
    return f"{', '.join(others)} or {last}"


@click.command(
    "import",
    cls=DerivedHelp,
    words={"formats": formats_read, "vectors": _vector_formats},
    short_help="Store vectors that exist in CACHE.",
)
@click.argument("vectors", nargs=-1, required=True, metavar="VECTORS...")
@click.option("-o", "--output", "cache", required=True, metavar="CACHE", help="The HDF5 file to create or continue.")
@click.option("--table", multiple=True, metavar="TABLE", help="Texts and labels of the same rows; may be repeated.")
@click.option("--vector", metavar="COL", help="The array or column of vectors.  [default: the only one, or embedding]")
@click.option("--text", help="The column of texts.  [default: text, where there is one]")
@click.option("--label", "labels", type=NAMES, help="Label columns.  [default: label, where there is one]")
@click.option("--id", "id", help="Column with an id for each row; where TABLE has it too, rows are matched by it.")
@click.option("--keep", type=NAMES, default=(), help="Other columns to keep, for --where, --group and search.")
@click.option("--encoder", metavar="NAME", help="What made them; vectors of one NAME count as comparable.")
@click.option(
    "--store",
    type=click.Choice(["auto", "float16", "float32", "int8"]),
    default="auto",
    show_default=True,
    help="Type of the stored vectors; auto is float32, of float16 vectors float16.",
)
@click.option("--na", type=NAMES, help='Labels that mean "not labelled"; "default" adds to the usual ones.')
@reading_options("in TABLE")
@click.option("--overwrite", is_flag=True, help="Replace a CACHE of other vectors or other texts.")
@json_option
def import_command(as_json: bool, vectors: tuple[str, ...], cache: str, table: tuple[str, ...], **options: Any) -> None:
    """Store vectors that were made elsewhere, with the texts and labels of their rows.

    VECTORS is a {vectors} file; several are read one after another. Texts, labels and other columns come from the
    same file or from TABLE, a {formats} file of the same rows in the same order.

    \b
      embedcache import vectors.npy --table reviews.csv -o reviews.h5
      ... --encoder text-embedding-3-small      what made them
      embedcache import reviews.parquet --vector embedding -o reviews.h5
      embedcache import batch.jsonl --table reviews.csv --id key -o reviews.h5

    CACHE is one like any other: train-head, audit, search, index, report and serve read it. No new text can be encoded
    here: predict and search take vectors (predict RUN --input new.npy).
    """
    from embedcache.commands.show import vectors as show
    from embedcache.commands.show.cache import interrupted_writing
    from embedcache.vectors.job import import_vectors as run

    try:
        with progress_bar("importing") as progress:
            report = run(vectors, cache, table=list(table) or None, progress=progress, **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted_writing(cache)) from None
    if as_json:
        emit(report.to_dict())
    else:
        show.imported(report)


@click.command(short_help="Write the vectors of CACHE to a file.")
@click.argument("cache")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file, in the format of its name.")
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), default=-1, show_default=True, help="The layer.")
@labels_option
@json_option
def vectors(as_json: bool, cache: str, output: str, **options: Any) -> None:
    """Write the vectors of CACHE for other tools: .npy, .npz or .safetensors.

    A table (.parquet, .jsonl, .csv and others) also has the id, text, labels and kept columns.

    \b
      embedcache vectors reviews.h5 -o reviews.npy
      embedcache vectors reviews.h5 -o reviews.parquet --pooling mean
    """
    from embedcache.commands.show import vectors as show
    from embedcache.vectors.write import write_vectors

    check_json(as_json, output)
    with progress_bar("writing") as progress:
        report = write_vectors(cache, output, progress=progress, **options)
    with unless_written_to(output):
        if as_json:
            emit(report.to_dict())
        else:
            show.written(report)
