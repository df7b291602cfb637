"""serve: the command that shows a cache and runs in the browser."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import json_option, labels_option
from embedcache.commands.serving import serve_with, serving_options


@click.command(short_help="Search CACHE and label texts in the browser, and over HTTP.")
@click.argument("cache")
@labels_option
@serving_options
@json_option
def serve(as_json: bool, **options: Any) -> None:
    """Search CACHE and label texts in the browser, and over HTTP. Ctrl-C stops it.

    The page finds similar texts, shows their labels and the map, and walks from text to text. /docs describes the JSON
    API, /metrics is for Prometheus. Only this machine can reach it; with --token other machines can, too (put
    a proxy with TLS in front). --json prints one line once it listens.

    \b
      embedcache serve reviews.h5 --run heads
      embedcache serve reviews.h5 --run heads --run other
      embedcache serve reviews.h5 --port 8080 --pooling mean
      EMBEDCACHE_TOKEN=... embedcache serve reviews.h5 --host 0.0.0.0
      curl -s localhost:8000/search --json '{"query": "too long", "k": 3}'
    """
    from embedcache.serve.job import serve_cache

    serve_with(serve_cache, as_json=as_json, does="shows", **options)
