"""The job of `embedcache serve`: open everything, listen, stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from embedcache.common.progress import Tell, no_tell
from embedcache.errors import EmbedcacheError


def serve_cache(
    cache: str | Path,
    run: str | Path | Sequence[str | Path] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    verbose: bool = False,
    index: str | Path | None = None,
    pooling: str | None = None,
    layer: int | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    listening: Callable[[str, int], None] = lambda url, rows: None,
    tell: Tell = no_tell,
) -> None:
    """Serve a cache, and a run, over HTTP until SIGINT or SIGTERM.

    Args:
        cache: The cache file.
        run: A run of the cache, whose best head labels texts; or several, of which the first one answers where a
            request names none.
        host: The address to listen on.
        port: The port; 0 takes any free port.
        token: What requests must bring, if it is set.
        verbose: Whether to log each request, without its texts.
        index: See ``Service.open``, as for the next five.
        pooling: See ``Service.open``.
        layer: See ``Service.open``.
        model: See ``Service.open``.
        device: See ``Service.open``.
        trust_remote_code: See ``Service.open``.
        listening: Called with the URL and the number of rows once the server listens.
        tell: Called with each note and each line of the log.

    Raises:
        EmbedcacheError: The extra is not installed, or the server cannot listen there; see also ``Service.open``.
    """
    try:
        from embedcache.serve.app import create_app
        from embedcache.serve.server import bind, run_server, url_of
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic"):
            raise
        raise EmbedcacheError(
            f"serve needs {error.name}, which is not installed: pip install 'embedcache[serve]'"
        ) from None
    from embedcache.serve.service import Service

    bound = bind(host, port)  # before the encoder is loaded: a port that is taken shows at once
    try:
        service = Service.open(
            cache,
            *([run] if isinstance(run, (str, Path)) else run),
            index=index,
            pooling=pooling,
            layer=layer,
            model=model,
            device=device,
            trust_remote_code=trust_remote_code,
        )
    except BaseException:
        bound.close()
        raise
    try:
        if service.no_encoder:
            tell(f"Note: only rows can be searched: {service.no_encoder}")
        app = create_app(service, token=token, verbose=verbose, log=tell)
        service.map.start(lambda problem: tell(f"Note: {problem}"))
        run_server(app, bound, lambda: listening(url_of(bound, host), service.cache.rows))
    finally:
        service.close()
        bound.close()
