"""What one request may ask for, and the middleware that holds it to size and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_CHARACTERS = 20_000  # of a text; encoders read some 250 tokens
MAX_TEXTS = 256  # of a /predict
MAX_EMBEDDED = 2048  # of a /v1/embeddings, as OpenAI has it
MAX_NUMBERS = 16_384  # of a vector
MAX_LABELLED = 200  # rows of a /labelling/next, labels of a /labelling/labels
MAX_CHOSEN = 5000  # rows that people chose on the map
MAX_COMMENT = 2000  # characters
MAX_RUNS = 32  # that a request may name
MAX_EXPLAINED = 8  # of a /predict that explains: each is encoded once for each of its words
MAX_EXAMPLES = 16  # likes, and unlikes, of a /search
MAX_K = 200
MAX_WHERE = 8  # conditions
MAX_CONDITION = 1000  # characters


@dataclass(frozen=True)
class Limits:
    """Limits of the server as a whole.

    ``body``: bytes of a request. ``seconds``: until it is answered, reading it included. ``waiting``: jobs (texts to
    encode in characters, searches by number) that may wait before new ones are turned away with 429.
    """

    body: int = 2 << 20
    seconds: float = 30.0
    waiting_characters: int = 4 << 20
    waiting_searches: int = 2048


class LimitRequests:
    """ASGI middleware: 413 for a body that is too large, 408 for one that comes too slowly, 504 for slow work."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        import anyio

        from embedcache.serve.security import refuse

        begun = answered = False

        async def watched_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        with anyio.move_on_after(self.limits.seconds) as clock:
            body = await self._read(scope, receive)
            if body is None:
                detail = f"the body is larger than {self.limits.body:,} bytes: send less at a time"
                await refuse(scope, receive, send, 413, detail)
                return
            begun = True
            await self.app(scope, _replay(body, receive), watched_send)
        if clock.cancelled_caught and not answered:
            seconds = f"{self.limits.seconds:g} seconds"
            if begun:
                await refuse(scope, receive, send, 504, f"not done within {seconds}: ask for less, or try again later")
            else:
                await refuse(scope, receive, send, 408, f"the body did not come within {seconds}")

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where it is too large.

        Some more is then read and dropped: many clients look for the answer only once they have sent all.
        """
        body, size = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)  # gone: the application will hear it as well
            part = message.get("body", b"")
            size += len(part)
            if size <= self.limits.body:
                body += part
            if not message.get("more_body") or size > 8 * self.limits.body:
                return bytes(body) if size <= self.limits.body else None


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
