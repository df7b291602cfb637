"""The options of commands that serve, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from embedcache.commands.common import device_option, emit, pooling_option, trust_option
from embedcache.commands.types import NumberInRange

OPTIONS = [
    click.option(
        "--run",
        metavar="RUN",
        multiple=True,
        help="A run of CACHE: its best head labels texts. Repeat it to compare.",
    ),
    click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
    click.option(
        "--port",
        type=NumberInRange(int, 0, 65536),
        default=8000,
        show_default=True,
        help="The port; 0 takes any free port.",
    ),
    click.option(
        "--token",
        envvar="EMBEDCACHE_TOKEN",
        show_envvar=True,
        help="Ask for this token; needed to listen beyond this machine.",
    ),
    click.option("--index", metavar="INDEX", help="What embedcache index wrote.  [default: that of CACHE, if any]"),
    pooling_option,
    click.option("--layers", "layer", type=NumberInRange(int, -1000), help="[default: -1, or that of INDEX]"),
    click.option("--model", help="The encoder's folder, where it has moved."),
    device_option,
    trust_option,
    click.option("--verbose", is_flag=True, help="Log each request on stderr, without its texts."),
]


def serving_options(command: Any) -> Any:
    """The decorator."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def serve_with(
    job: Callable[..., None],
    cache: str,
    run: Sequence[str],
    host: str,
    token: str | None,
    as_json: bool,
    does: str,
    **options: Any,
) -> None:
    """Call a job that serves until it is stopped, and say where it listens. does: "shows" or "labels"."""
    _check_token(host, token, "--token")
    if (label_token := options.get("label_token")) is not None:
        _check_token(host, label_token, "--label-token")
        if token is None or token == label_token:
            raise click.UsageError("--label-token may only label: give another --token, which may do all")

    def listening(url: str, rows: int) -> None:
        if as_json:
            about = {"run": run[0] if run else None, "runs": list(run)}
            emit({"url": url, "cache": cache, **about, "rows": rows, "token": token is not None})
        else:
            click.echo(f"{url} {does} {' and '.join([cache, *run])}. Ctrl-C stops it.")
            if token is not None:
                click.echo("The page asks for the token.")

    job(
        cache, run, host=host, token=token, listening=listening, tell=lambda line: click.echo(line, err=True), **options
    )
    click.echo("Stopped.", err=True)


def _check_token(host: str, token: str | None, option: str) -> None:
    from embedcache.serve.security import is_loopback

    if token is None and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} lets others in: give --token TOKEN (or EMBEDCACHE_TOKEN), or keep to 127.0.0.1"
        )
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise click.UsageError(f"{option} must be printable ASCII characters without blanks, at least one")
