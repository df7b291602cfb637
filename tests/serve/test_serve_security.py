"""Who may ask: hosts, origins, tokens; and the headers of every answer."""

from __future__ import annotations

from typing import Any

import pytest

from embedcache.serve.security import host_name, is_loopback
from tests.serve.serving import make_client

TOKEN = "correct-horse"
ASK = {"row": 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000", "127.1.2.3"])
def test_names_of_this_machine_are_answered(client: Any, host: str) -> None:
    assert client.get("/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "10.0.0.1", "", "[::1", "127.0.0.1.evil"]
)
def test_other_names_are_dns_rebinding(client: Any, host: str) -> None:
    for path in ("/", "/info", "/rows/1", "/openapi.json"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 400 and "Host" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_cannot_ask(client: Any, headers: dict[str, str]) -> None:
    assert client.post("/search", json=ASK, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1"}]
)
def test_the_own_page_and_programs_can(client: Any, headers: dict[str, str]) -> None:
    assert client.post("/search", json=ASK, headers=headers).status_code == 200


def test_there_is_no_cors(client: Any) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answers = [client.options("/search", headers=headers), client.get("/info", headers=headers)]
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)


@pytest.mark.parametrize("path", ["/", "/info", "/rows/1", "/static/app.js", "/nothing", "/rows/x"])
def test_every_answer_has_the_security_headers(client: Any, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if path in ("/", "/static/app.js") else "no-store")
    assert "server" not in headers


def test_a_refusal_has_them_too(service: Any) -> None:
    client = make_client(service, token=TOKEN)
    assert "content-security-policy" in client.get("/info").headers


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xe9"],
)
def test_without_the_token_nothing_of_the_data_comes_out(service: Any, header: str | None) -> None:
    client = make_client(service, token=TOKEN)
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for path in (
        "/info",
        "/rows/1",
        "/map",
        "/map/points",
        "/map/groups/label",
        "/leaderboard",
        "/metrics",
        "/nothing",
    ):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
        assert list(answer.json()) == ["detail"]
    assert client.post("/search", json=ASK, headers=headers).status_code == 401
    assert client.get(f"/info?token={TOKEN}").status_code == 401, "never from the query string"


def test_with_the_token(service: Any) -> None:
    client = make_client(service, token=TOKEN)
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {TOKEN}", "Host": "reviews.example"}
        assert client.get("/info", headers=headers).status_code == 200
        assert client.post("/search", json=ASK, headers=headers).status_code == 200
    for path in ("/", "/healthz", "/docs", "/openapi.json", "/static/app.js"):
        assert client.get(path).status_code == 200, "what holds no data"
    assert client.get("/openapi.json").json()["security"] == [{"token": []}]


def test_names_and_addresses() -> None:
    assert [host_name(one) for one in ("a:1", "[::1]:2", "A", "", "[x")] == ["a", "::1", "a", "", ""]
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "::1", "127.8.8.8"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "", "192.168.0.1", "example.org"]))
