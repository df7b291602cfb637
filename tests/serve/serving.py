"""Ways to reach a service: as an application in this thread, and on a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HOSTILE = [
    '<img src=x onerror="window.stolen = 1">',
    "<script>window.stolen = 1</script> a good film",
    '"><svg onload=window.stolen=1> & &amp; a bad film',
]


def make_client(service: Any, **options: Any) -> Any:
    from fastapi.testclient import TestClient

    from embedcache.serve.app import create_app

    return TestClient(create_app(service, **options), base_url="http://127.0.0.1", raise_server_exceptions=False)


def start_map(service: Any) -> Any:
    """The same service, with the map of its cache made."""
    from embedcache.serve.projection import default_map_path, make_map, save_map

    save_map(default_map_path(service.cache.path), make_map(service.cache), service.cache)
    service.map.start(print)
    return service


@contextmanager
def listening(service: Any, **options: Any) -> Iterator[str]:
    """The application on a free port, until the block ends."""
    from embedcache.serve.app import create_app
    from embedcache.serve.server import Server, bind, url_of

    bound, ready = bind("127.0.0.1", 0), threading.Event()
    server = Server(create_app(service, **options), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    assert ready.wait(20)
    try:
        yield url_of(bound, "127.0.0.1")
    finally:
        server.should_exit = True
        thread.join()


def detail(answer: Any, status: int) -> str:
    """The one line of an error, which has this shape and no other."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    line = answer.json()["detail"]
    assert isinstance(line, str) and line and "\n" not in line and "Traceback" not in line
    return str(line)
