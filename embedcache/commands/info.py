"""info and verify: the commands that look at a cache."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import emit, json_option, labels_option
from embedcache.errors import EmbedcacheError


@click.command(short_help="Show what CACHE holds.")
@click.argument("cache")
@labels_option
@json_option
def info(as_json: bool, cache: str, labels: str | None) -> None:
    """What CACHE holds: rows, vectors, labels, columns, the encoder that made it, and what people labelled since.

    \b
      embedcache info reviews.h5
      embedcache info reviews.h5 --json
    """
    from embedcache.cache.notes import data_notes, rounding_notes
    from embedcache.cache.token_states import describe_states
    from embedcache.cache.tokens import reading_of
    from embedcache.commands.show import cache as show
    from embedcache.labelling import open_labelled

    with open_labelled(cache, labels) as opened:
        about: dict[str, Any] = {
            "reading": reading_of(opened).to_dict(),
            "notes": data_notes(opened) + rounding_notes(opened),
            "labels_from": opened.labels_from,
        }
        about["token_states"] = describe_states(opened.path, opened.encoder, opened.hashes)
        document = opened.info() | about
    if as_json:
        emit(document)
    else:
        show.info(document)


@click.command(short_help="Check every byte of CACHE.")
@click.argument("cache")
@json_option
def verify(as_json: bool, cache: str) -> None:
    """Check every byte of CACHE against its checksums.

    Exit code 1 if something differs; run the extract that made CACHE again to repair it.

    \b
      embedcache verify reviews.h5
      embedcache verify reviews.h5 --json
    """
    from embedcache.cache import verify as run
    from embedcache.commands.show import cache as show

    report = run(cache)
    if as_json:
        emit(report.to_dict())
    else:
        show.verify(cache, report)
    if report.damaged:
        raise EmbedcacheError(show.damage(cache, report))
