"""hf:// and s3:// against servers on this machine: a small hub, and moto's S3 where it is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.tables.remote import expanded
from embedcache.tables.rows import Columns, read_rows
from embedcache.tables.stream import stored
from tests.conftest import document, fails

FRAMES = [
    pd.DataFrame({"text": ["good", "bad"], "label": ["a", "b"]}),
    pd.DataFrame({"text": ["fine", "dull"], "label": ["a", "b"]}),
]
TEXTS = ["good", "bad", "fine", "dull"]
SHA = "1" * 40
ACCESS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks for one public data set, user/reviews, of ``files``, and for another that is closed."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, found: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(found).encode(), status, Content_Type="application/json", **headers)

    def _about(self, name: str) -> dict[str, Any]:
        return {"type": "file", "oid": "2" * 40, "size": len(self.files[name]), "path": name}

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self._json([self._about(name) for name in self.files if name in asked])

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "user/reviews" not in path:
            self._json({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound", X_Error_Message="no such")
        elif file := re.fullmatch(r"/datasets/user/reviews/resolve/\w+/(.+)", path):
            self._file(self.files.get(file[1]))
        elif "/tree/" in path:
            self._json([self._about(name) for name in self.files])
        else:
            self._json({"id": "user/reviews", "sha": SHA, "private": False, "gated": False, "siblings": []})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _file(self, body: bytes | None) -> None:
        if body is None:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        about = {"X_Repo_Commit": SHA, "ETag": '"2"', "Accept_Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2] or len(body)), len(body) - 1)
            about["Content_Range"] = f"bytes {first}-{last}/{len(body)}"
            self._send(body[first : last + 1], 206, **about)
        else:
            self._send(body, **about)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("huggingface_hub")
    folder = tmp_path_factory.mktemp("hub")
    for number, frame in enumerate(FRAMES):
        frame.to_parquet(folder / f"part-{number}.parquet")
    Hub.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


def at_hub(hub: str, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: huggingface_hub reads its endpoint when it is imported."""
    ours = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "embedcache", *map(str, arguments), "--json"]
    return subprocess.run(command, env={**os.environ, **ours}, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_the_hub(hub: str, tiny_bert: Path, tmp_path: Path) -> None:
    to = ["-o", tmp_path / "c.h5", "--model", tiny_bert]
    found = at_hub(hub, tmp_path, "extract", "hf://datasets/user/reviews/*.parquet", *to)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["encoded"] == 4
    with open_cache(tmp_path / "c.h5") as cache:
        assert list(cache.texts) == TEXTS
    one = at_hub(
        hub, tmp_path, "extract", "hf://datasets/user/reviews/part-1.parquet", "-o", tmp_path / "d.h5", *to[2:]
    )
    assert json.loads(one.stdout)["rows"] == 2
    for address in ("hf://datasets/user/reviews/none.parquet", "hf://datasets/user/other/part-0.parquet"):
        failed = at_hub(hub, tmp_path, "extract", address, "-o", tmp_path / "e.h5", *to[2:])
        assert failed.returncode == 1 and not failed.stdout
        assert f"Error: {address}: nothing is there: check the address" in failed.stderr.splitlines()[-1]
        assert "Traceback" not in failed.stderr and not (tmp_path / "e.h5").exists()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """s3://reviews with two tables, and an empty s3://bare."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {**ACCESS, "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": host}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    for name in ("reviews", "bare"):
        system.mkdir(name)
    for number, frame in enumerate(FRAMES):
        system.pipe(f"reviews/2026/t{number}.csv", frame.to_csv(index=False).encode())
    yield "s3://reviews/2026"
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.mark.slow
def test_s3(bucket: str, tiny_bert: Path, tmp_path: Path) -> None:
    assert expanded(f"{bucket}/*.csv") == [f"{bucket}/t0.csv", f"{bucket}/t1.csv"]
    with stored(f"{bucket}/t1.csv") as table:
        (rows,) = read_rows([table], Columns(labels=("label",)))
    assert rows.texts.to_pylist() == TEXTS[2:]
    found = document("extract", f"{bucket}/*.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert)
    assert found["rows"] == 4
    for address in (f"{bucket}/none.csv", "s3://bare/*.csv", "s3://no-such-bucket/t.csv"):
        error = fails("extract", address, "-o", tmp_path / "d.h5", "--model", tiny_bert)
        assert f"{address}: nothing is there" in error


@pytest.mark.slow
def test_s3_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    for name, value in {**ACCESS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(EmbedcacheError, match="cannot be read") as error, stored("s3://reviews/t0.csv"):
        pass
    assert "\n" not in str(error.value)
