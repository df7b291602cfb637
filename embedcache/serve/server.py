"""Listen, report the address, and stop cleanly."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from embedcache.errors import EmbedcacheError

GRACE_SECONDS = 15  # that requests in flight have once the server is to stop
BACKLOG = 1024


class Server(uvicorn.Server):
    """uvicorn, but it tells when it listens, and a signal that stopped it is not raised again: that is no failure."""

    def __init__(self, app: Any, listening: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                log_level="critical",
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="off",
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address, not yet listening. Raises EmbedcacheError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise EmbedcacheError(f"cannot resolve --host '{host}' ({_reason(error)}): name another address") from None
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Another server may be bound to it without listening yet; two cannot both listen.
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise EmbedcacheError(
            f"cannot listen on {host}, port {port}: {_reason(error)}; choose another --port (0: any that is free)"
        ) from None
    return bound


def url_of(bound: socket.socket, host: str) -> str:
    """Where a browser finds it; of "every address" this machine's own."""
    port = bound.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def run_server(app: Any, bound: socket.socket, listening: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are finished."""
    server = Server(app, listening)
    with suppress(asyncio.CancelledError):
        server.run(sockets=[bound])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
