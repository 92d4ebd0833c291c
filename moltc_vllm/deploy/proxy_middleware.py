"""Middleware in Ray Serve's HTTP proxy that adds molecule affinity and retries requests.

Ray calls `middlewares` when its proxies start, if the cluster was started with
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=moltc_vllm.deploy.proxy_middleware:middlewares`` in its
environment; ``moltc deploy`` sets it. Serve's HAProxy mode bypasses this middleware and has its own
retries.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moltc_vllm.deploy.asgi import RETRY_HEADERS, send_body_too_large, send_error
from moltc_vllm.engines.affinity import AFFINITY_HEADER, affinity_key

MAX_ATTEMPTS = 2
"""Attempts per request; the limit keeps a request that kills engines from killing all of them."""

RETRY_PAUSE_S = 1.0
"""Pause before a retry, in seconds, in which Serve removes the replica that died."""

MAX_BODY_BYTES = 64_000_000
"""Largest accepted request body; Serve's proxy itself has no limit."""

_SEARCHED_BYTES = 16_384
"""Length of the beginning of a body that is searched for the first molecule."""

_JSON_STRING = rb'"((?:[^"\\]|\\.){0,4000})"'
_FIRST_MOLECULE = re.compile(
    rb'"(?:pairs"\s*:\s*\[\s*\[\s*|smiles"\s*:\s*|molblock"\s*:\s*)'
    + _JSON_STRING
    # SMILES in a text prompt, between its tags; the text has no quotes or only escaped ones.
    + rb"|\[START_(?:I_)?SMILES\](.{0,2000}?)\[END_(?:I_)?SMILES\]"
)
_logger = logging.getLogger("ray.serve")


def middlewares() -> list[Middleware]:
    """Return the middlewares that Serve's HTTP proxy wraps around itself."""
    return [Middleware(RetryAffinityMiddleware)]


class RetryAffinityMiddleware:
    """Add the affinity header to requests and retry those whose replica died.

    Both need the whole request body. A request is not retried once the client has received the
    beginning of its response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:  # the client disconnected
            return
        if len(body) > MAX_BODY_BYTES:
            await send_body_too_large(send, MAX_BODY_BYTES)
            return
        attempt_scope = _add_affinity_header(scope, body)
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            response = _AttemptResponse(send)
            request = _ReplayedRequest(body, receive)
            await self.app({**attempt_scope}, request.receive, response.send)
            if response.started or request.disconnected:
                return
            if attempts_left:
                _logger.warning("a replica died; retrying %s on another one", scope["path"])
                await asyncio.sleep(RETRY_PAUSE_S)
                # Without the header any replica may answer: the dead one may still be listed.
                attempt_scope = scope
        await send_error(
            send, 503, "a replica died and is being replaced; retry the request", RETRY_HEADERS
        )


async def _read_body(receive: Receive) -> bytes | None:
    """Read a request body, but not further than the first chunk over `MAX_BODY_BYTES`.

    Returns:
        The body, or ``None`` if the client disconnected.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES or not message.get("more_body", False):
            return bytes(body)


class _AttemptResponse:
    """Response of one attempt, which drops the error response of a dead engine.

    Attributes:
        started: Whether the beginning of the response was sent to the client.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self.started = not all(
                headers.get(name.encode()) == value.encode()
                for name, value in RETRY_HEADERS.items()
            )
        if self.started:
            await self._send(message)


class _ReplayedRequest:
    """Request that replays a body before it passes on the client's further messages.

    Attributes:
        disconnected: Whether the client disconnected.
    """

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self.disconnected = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self.disconnected |= message["type"] == "http.disconnect"
        return message


def _add_affinity_header(scope: Scope, body: bytes) -> Scope:
    """Return the scope with an affinity header, unless it has one or the body has no molecule."""
    header = AFFINITY_HEADER.encode()
    if any(name == header for name, _ in scope["headers"]):
        return scope
    molecule = first_molecule(body)
    if molecule is None:
        return scope
    return {**scope, "headers": [*scope["headers"], (header, affinity_key(molecule).encode())]}


def first_molecule(body: bytes) -> str | None:
    """Find the first molecule in the JSON body of any of the server's routes.

    The beginning of the body is searched with a regular expression instead of parsing all of it: a
    body can have ten thousand pairs, and parsing would block the proxy's event loop.

    Args:
        body: Request body.

    Returns:
        The molecule's SMILES or molblock as written in the body, or ``None`` if it is not found.
    """
    match = _FIRST_MOLECULE.search(body, 0, _SEARCHED_BYTES)
    if match is None:
        return None
    text = match[1] if match[1] is not None else match[2]
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError:
        return None
