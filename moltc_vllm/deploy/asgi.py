"""ASGI middlewares around vLLM's application in a replica."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DISCONNECT_GRACE_S = 2.0
_DISCONNECT: Message = {"type": "http.disconnect"}
_ERROR_TYPES = {413: "BadRequestError", 503: "ServiceUnavailableError"}

RETRY_HEADERS = {"retry-after": "1", "x-should-retry": "true"}
"""Response headers that ask the client to retry; OpenAI's clients check the second one first."""


class ClientDisconnectMiddleware:
    """Abort vLLM's work on a request when its client disconnects.

    Ray Serve cancels the task of such a request, while vLLM waits for ``http.disconnect`` and would
    otherwise generate to the end. This middleware translates the cancellation into that message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        disconnected = asyncio.Event()

        async def receive_or_disconnect() -> Message:
            if disconnected.is_set():
                return _DISCONNECT
            message = asyncio.ensure_future(receive())
            disconnect = asyncio.ensure_future(disconnected.wait())
            try:
                await asyncio.wait({message, disconnect}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else _DISCONNECT
            finally:
                message.cancel()
                disconnect.cancel()

        request = asyncio.ensure_future(self.app(scope, receive_or_disconnect, send))
        try:
            await asyncio.shield(request)
        except asyncio.CancelledError:
            disconnected.set()
            await asyncio.wait({request}, timeout=_DISCONNECT_GRACE_S)
            request.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await request
            raise


class RetryableErrorMiddleware:
    """Answer 503 with ``Retry-After`` instead of 500 after the engine has died.

    vLLM answers 500 to every internal error, which clients do not retry. A response whose status
    has already been sent is not changed.

    Args:
        app: Application to wrap.
        engine_died: Function that returns whether the engine has died.
    """

    def __init__(self, app: ASGIApp, engine_died: Callable[[], bool]) -> None:
        self.app = app
        self._engine_died = engine_died

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        replaced = False

        async def send_unless_replaced(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 500:
                replaced = self._engine_died()
                if replaced:
                    await send_error(
                        send,
                        503,
                        "the replica's engine died and is being replaced; retry the request",
                        RETRY_HEADERS,
                    )
            if not replaced:
                await send(message)

        await self.app(scope, receive, send_unless_replaced)


class BodyLimitMiddleware:
    """Refuse request bodies over a size limit before they are held in memory.

    Args:
        app: Application to wrap.
        max_bytes: Size limit in bytes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            await send_body_too_large(send, self._max_bytes)
            return
        received = 0
        response_started = False

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _BodyTooLargeError
            return message

        async def send_unless_too_large(message: Message) -> None:
            nonlocal response_started
            if received > self._max_bytes and not response_started:
                return  # FastAPI turns `_BodyTooLargeError` into a 400, which 413 replaces below
            response_started = True
            await send(message)

        with contextlib.suppress(_BodyTooLargeError):
            await self.app(scope, receive_within_limit, send_unless_too_large)
        if received > self._max_bytes and not response_started:
            await send_body_too_large(send, self._max_bytes)


class _BodyTooLargeError(Exception):
    pass


async def send_body_too_large(send: Send, max_bytes: int) -> None:
    """Send a 413 response that names the limit.

    Args:
        send: ASGI channel of the response.
        max_bytes: Size limit in bytes.
    """
    await send_error(send, 413, f"the request body exceeds the limit of {max_bytes:,} bytes")


async def send_error(
    send: Send, status: int, message: str, headers: dict[str, str] | None = None
) -> None:
    """Send an error response in the format of OpenAI's API.

    Args:
        send: ASGI channel of the response.
        status: HTTP status code.
        message: Text for the client.
        headers: Further response headers.
    """
    kind = _ERROR_TYPES.get(status, "Error")
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
