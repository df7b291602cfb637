"""Who may ask, and what a browser may do with the answer."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts and styles are files of our own; nothing inline, nothing from elsewhere, and no text can become HTML
# (Trusted Types: browsers that know them refuse innerHTML and its like altogether).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
# They hold nothing of the data: the page has to load before it can ask for the token.
OPEN_PATHS = ("/", "/docs", "/healthz", "/openapi.json")
OPEN_FOLDER = "/static/"
OPENAI_FOLDER = "/v1/"
# What a token that may only label reaches: the queue, and the texts and neighbours that help to decide.
LABEL_PATHS = ("/info", "/search", "/labelling")
LABEL_FOLDERS = ("/rows/", "/labelling/")
ROLE = "embedcache.role"  # in an ASGI scope: "all" or "label"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def error_document(path: str, detail: str) -> dict[str, Any]:
    """The one shape that all errors have; OpenAI's clients look for theirs beside it."""
    return {"detail": detail, **({"error": {"message": detail}} if path.startswith(OPENAI_FOLDER) else {})}


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str, **headers: str) -> None:
    """Answer with an error in the one shape that all errors have."""
    from starlette.responses import JSONResponse

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    await JSONResponse(error_document(scope["path"], detail), status, named)(scope, receive, send)


class SecureHeaders:
    """ASGI middleware: the security headers on every answer; nothing of the data is kept by a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fixed = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        fixed.append((b"cache-control", b"no-cache" if _is_open(scope["path"]) else b"no-store"))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *fixed]}
            await send(message)

        await self.app(scope, receive, with_headers)


class Guard:
    """ASGI middleware: the token where there is one, and requests that other web sites cause turned away.

    Without a token the Host must be a name of this machine: a foreign name that resolves to it is DNS rebinding, by
    which any web site could read the answers. A site does not have the token; with one, proxies may use their own name.
    """

    def __init__(self, app: ASGIApp, token: str | None = None, label_token: str | None = None) -> None:
        """label_token: a second token, which may only label."""
        self.app, self.token = app, token
        self._roles = {"all": token, "label": label_token}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.token is None and not is_loopback(host_name(host)):
            detail = (
                "the Host header does not name this machine: use http://127.0.0.1 or localhost, or start with --token"
            )
            await refuse(scope, receive, send, 400, detail)
        elif scope["method"] not in SAFE_METHODS and _is_foreign(headers, host):
            await refuse(
                scope, receive, send, 403, "the request comes from another web site: only its own page may ask"
            )
        elif (role := self._role(headers)) is None and not _is_open(scope["path"]):
            detail = "a token is needed: send the header Authorization: Bearer TOKEN"
            await refuse(scope, receive, send, 401, detail, www_authenticate="Bearer")
        elif role == "label" and not (_is_open(scope["path"]) or _is_for_labels(scope["path"])):
            await refuse(scope, receive, send, 403, "this token may only label")
        else:
            scope[ROLE] = role
            await self.app(scope, receive, send)

    def _role(self, headers: dict[bytes, str]) -> str | None:
        """What a request may do: "all", "label" or nothing (None)."""
        if self.token is None:
            return "all"
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        known = [
            role
            for role, token in self._roles.items()
            if token is not None and hmac.compare_digest(given.strip().encode(), token.encode())
        ]
        return known[0] if known and scheme.lower() == "bearer" else None


def host_name(host: str) -> str:
    """A Host header without its port: "localhost:8000" -> "localhost", "[::1]:80" -> "::1"; "" for nonsense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _is_for_labels(path: str) -> bool:
    return path in LABEL_PATHS or path.startswith(LABEL_FOLDERS)


def _is_foreign(headers: dict[bytes, str], host: str) -> bool:
    """Whether a browser says that another site's page sent it. Programs send neither header."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None and site not in ("same-origin", "none"):
        return True
    return origin is not None and origin.partition("://")[2].lower() != host.lower()
