"""The job of `embedcache serve`: open everything, listen, stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.common.progress import Tell, no_tell
from embedcache.errors import EmbedcacheError
from embedcache.labelling.opened import notes_of

if TYPE_CHECKING:
    from embedcache.prompting.labels import NamedLabels
    from embedcache.serve.service import Service


def serve_cache(
    cache: str | Path,
    run: str | Path | Sequence[str | Path] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    verbose: bool = False,
    labels: str | Path | None = None,
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
        labels: See ``Service.open``, as for the next six.
        index: See ``Service.open``.
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
    serving = _Serving(host, port, token, None, verbose, listening, tell)
    _serve(
        cache, run, serving, labels=labels, index=index, pooling=pooling, layer=layer, model=model, device=device,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip


def label_cache(
    cache: str | Path,
    run: str | Path | Sequence[str | Path] = (),
    *,
    label: str | None = None,
    labels_of: NamedLabels | None = None,
    task: str | None = None,
    group: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    label_token: str | None = None,
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
    """Serve a cache with the right to label it: labels go to the journal beside the cache, never into it.

    Args:
        cache: See ``serve_cache``, as for ``run``.
        run: The first one says which rows test, and what the kind of task is.
        label: The column; None: the run's first, else the only label column. It may be a new one.
        labels_of: Names of classes beside those of the column, and descriptions by which rows are guessed as long as
            none has a label, as ``zero_shot`` takes them.
        task: "classification", "multilabel" or "regression"; None: the run's, else that of the column.
        group: A column; rows with the same value are in one fold, and take turns. None: the run's, if it was split by
            one.
        host: See ``serve_cache``, as for the next ones.
        port: See ``serve_cache``.
        token: See ``serve_cache``; it may do all.
        label_token: A token that may only label.
        verbose: See ``serve_cache``.
        index: See ``serve_cache``.
        pooling: See ``serve_cache``.
        layer: See ``serve_cache``.
        model: See ``serve_cache``.
        device: See ``serve_cache``.
        trust_remote_code: See ``serve_cache``.
        listening: See ``serve_cache``.
        tell: See ``serve_cache``.

    Raises:
        EmbedcacheError: As ``serve_cache``; a column that cannot be labelled, or a journal that cannot be written.
    """
    serving = _Serving(host, port, token, label_token, verbose, listening, tell)

    def write(service: Service) -> None:
        from embedcache.serve.label_column import open_session

        open_session(service, label, labels_of or (), task, group).begin()

    _serve(
        cache, run, serving, write, index=index, pooling=pooling, layer=layer, model=model, device=device,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip


@dataclass(frozen=True)
class _Serving:
    """How to serve: the arguments of ``label_cache``."""

    host: str
    port: int
    token: str | None
    label_token: str | None
    verbose: bool
    listening: Callable[[str, int], None]
    tell: Tell


def _serve(
    cache: str | Path,
    run: str | Path | Sequence[str | Path],
    how: _Serving,
    prepare: Callable[[Service], None] = lambda service: None,
    **opening: Any,
) -> None:
    """opening: of ``Service.open``. prepare: called with the service before it is served."""
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

    bound = bind(how.host, how.port)  # before the encoder is loaded: a port that is taken shows at once
    try:
        service = Service.open(cache, *([run] if isinstance(run, (str, Path)) else run), **opening)
    except BaseException:
        bound.close()
        raise
    try:
        for note in notes_of(service.cache.labels_from):
            how.tell(f"Note: {note}")
        prepare(service)
        if service.no_encoder:
            how.tell(f"Note: only rows can be searched: {service.no_encoder}")
        tokens = {"token": how.token, "label_token": how.label_token}
        app = create_app(service, **tokens, verbose=how.verbose, log=how.tell)
        service.map.start(lambda problem: how.tell(f"Note: {problem}"))
        run_server(app, bound, lambda: how.listening(url_of(bound, how.host), service.cache.rows))
    finally:
        service.close()
        bound.close()
