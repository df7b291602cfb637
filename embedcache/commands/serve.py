"""serve: the command that shows a cache and a run in the browser."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import device_option, emit, json_option, pooling_option, trust_option
from embedcache.commands.types import NumberInRange


@click.command(short_help="Search CACHE and label texts in the browser, and over HTTP.")
@click.argument("cache")
@click.option(
    "--run",
    metavar="RUN",
    multiple=True,
    help="A run of CACHE: its best head labels texts. Repeat it to compare.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=NumberInRange(int, 0, 65536),
    default=8000,
    show_default=True,
    help="The port; 0 takes any free port.",
)
@click.option(
    "--token",
    envvar="EMBEDCACHE_TOKEN",
    show_envvar=True,
    help="Ask for this token; needed to listen beyond this machine.",
)
@click.option("--index", metavar="INDEX", help="What embedcache index wrote.  [default: that of CACHE, if any]")
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), help="[default: -1, or that of INDEX]")
@click.option("--model", help="The encoder's folder, where it has moved.")
@device_option
@trust_option
@click.option("--verbose", is_flag=True, help="Log each request on stderr, without its texts.")
@json_option
def serve(
    as_json: bool,
    cache: str,
    run: tuple[str, ...],
    host: str,
    port: int,
    token: str | None,
    verbose: bool,
    **options: Any,
) -> None:
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
    _check_token(host, token)
    from embedcache.serve.job import serve_cache

    def listening(url: str, rows: int) -> None:
        if as_json:
            about = {"run": run[0] if run else None, "runs": list(run)}
            emit({"url": url, "cache": cache, **about, "rows": rows, "token": token is not None})
        else:
            click.echo(f"{url} shows {' and '.join([cache, *run])}. Ctrl-C stops it.")
            if token is not None:
                click.echo("The page asks for the token.")

    serve_cache(
        cache,
        run,
        host=host,
        port=port,
        token=token,
        verbose=verbose,
        listening=listening,
        tell=lambda line: click.echo(line, err=True),
        **options,
    )
    click.echo("Stopped.", err=True)


def _check_token(host: str, token: str | None) -> None:
    from embedcache.serve.security import is_loopback

    if token is None and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} lets others in: give --token TOKEN (or EMBEDCACHE_TOKEN), or keep to 127.0.0.1"
        )
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise click.UsageError("--token must be printable ASCII characters without blanks, at least one")
