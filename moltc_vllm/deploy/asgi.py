"""What stands around vLLM's application in a replica (plain ASGI)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LEAVING_S = 2.0

RETRY = {"retry-after": "1", "x-should-retry": "true"}
"""Headers of an answer that means: try again. The second is what OpenAI's clients look at first."""


class ClientDisconnectMiddleware:
    """Tell vLLM when the client has left, so that it ends the work.

    Serve cancels the task of such a request; vLLM waits for ``http.disconnect``, and what it has
    begun would run to its end. Here the one becomes the other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        gone = asyncio.Event()

        async def receive_or_gone() -> Message:
            if gone.is_set():
                return {"type": "http.disconnect"}
            message = asyncio.ensure_future(receive())
            leaving = asyncio.ensure_future(gone.wait())
            try:
                await asyncio.wait({message, leaving}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                for one in (message, leaving):
                    one.cancel()

        work = asyncio.ensure_future(self.app(scope, receive_or_gone, send))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            gone.set()
            await asyncio.wait({work}, timeout=_LEAVING_S)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work
            raise


class RetryableErrorMiddleware:
    """Say that a request may be tried again when it failed because the engine has died.

    vLLM answers 500 then, as to any fault of its own; here it is 503 with ``Retry-After``, which
    clients understand. A stream that has begun ends as it would have.
    """

    def __init__(self, app: ASGIApp, broken: Callable[[], bool]) -> None:
        self.app = app
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = False

        async def watched(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 500:
                refused = self._broken()
                if refused:
                    await respond(send, 503, "the engine died; another one is started", RETRY)
            if not refused:
                await send(message)

        await self.app(scope, receive, watched)


class BodyLimitMiddleware:
    """Refuse bodies that are too long; a replica's memory never has more of one.

    Args:
        app: Who gets the others.
        most: Bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most:
            await self._refuse(send)
            return
        seen = 0
        begun = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise _TooLongError
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            if seen > self._most and not begun:
                return  # FastAPI makes a 400 of what `counted` raises
            begun = True
            await send(message)

        with contextlib.suppress(_TooLongError):
            await self.app(scope, counted, watched)
        if seen > self._most and not begun:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        await respond(send, 413, f"a request has at most {self._most:,} bytes")


class _TooLongError(Exception):
    pass


async def respond(
    send: Send, status: int, message: str, headers: dict[str, str] | None = None
) -> None:
    """Send an error of the form that OpenAI's API has."""
    kind = {413: "BadRequestError", 503: "ServiceUnavailableError"}.get(status, "Error")
    error = {"message": message, "type": kind, "param": None, "code": status}
    body = json.dumps({"error": error}).encode()
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **(headers or {}),
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
