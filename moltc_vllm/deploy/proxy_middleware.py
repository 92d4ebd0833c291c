"""A thin layer in Serve's HTTP proxy: which molecule a request is about, and a second try.

Ray calls `middlewares` when its proxies start, if the cluster was started with the variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=moltc_vllm.deploy.proxy_middleware:middlewares``; ``moltc deploy``
does so. HAProxy, where Serve uses it, is not asked: it tries again by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moltc_vllm.deploy.asgi import RETRY, respond
from moltc_vllm.engines.affinity import HEADER, affinity_key

TRIES = 2
"""A request that kills engines must not kill all of them."""

PAUSE_S = 1.0
"""Before a second try: a replica whose engine died takes a moment to leave."""

MOST_BYTES = 64_000_000
"""Of a body; Serve's proxy would take any."""

_LOOKED_AT = 16_384  # bytes of a body: the first molecule stands near its beginning
_logger = logging.getLogger("ray.serve")
_TEXT = rb'"((?:[^"\\]|\\.){0,4000})"'
_FIRST = re.compile(
    rb'"(?:pairs"\s*:\s*\[\s*\[\s*|smiles"\s*:\s*|molblock"\s*:\s*)'
    + _TEXT
    # of a text prompt; what stands between the marks has no quotes, or escaped ones
    + rb"|\[START_(?:I_)?SMILES\](.{0,2000}?)\[END_(?:I_)?SMILES\]"
)


def middlewares() -> list[Middleware]:
    """What Serve's HTTP proxy puts around itself."""
    return [Middleware(RetryAffinityMiddleware)]


class RetryAffinityMiddleware:
    """Name a request's first molecule, and send it again when its replica died under it.

    Both need the body. Nothing is sent twice of which the client has seen a beginning.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await _whole(receive)
        if body is None:
            return  # it has left
        if len(body) > MOST_BYTES:
            await respond(send, 413, f"a request has at most {MOST_BYTES:,} bytes")
            return
        named = _named(scope, body)
        for left in reversed(range(TRIES)):
            attempt = _Attempt(send)
            again = _Replayed(body, receive)
            await self.app({**named}, again.receive, attempt.send)
            if attempt.begun or again.left:
                return
            if left:
                _logger.warning("a replica died: %s is sent again", scope["path"])
                await asyncio.sleep(PAUSE_S)
                named = scope  # to any replica: its own one may not have gone yet
        await respond(send, 503, "a replica died; another one is started", RETRY)


async def _whole(receive: Receive) -> bytes | None:
    """A body; no more of it than shows that it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MOST_BYTES or not message.get("more_body", False):
            return bytes(body)


class _Attempt:
    """One attempt's answer; not ``begun`` if there was none, or none but that of a dead engine."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self.begun = not all(
                headers.get(name.encode()) == value.encode() for name, value in RETRY.items()
            )
        if self.begun:
            await self._send(message)


class _Replayed:
    """The body again, then whatever comes; ``left`` when the client has."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self.left = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self.left |= message["type"] == "http.disconnect"
        return message


def _named(scope: Scope, body: bytes) -> Scope:
    """The request with the header, if it has none and is about a molecule."""
    name = HEADER.encode()
    if any(one == name for one, _ in scope["headers"]):
        return scope
    molecule = first_molecule(body)
    if molecule is None:
        return scope
    return {**scope, "headers": [*scope["headers"], (name, affinity_key(molecule).encode())]}


def first_molecule(body: bytes) -> str | None:
    """The first molecule of a JSON body of any of our routes, as it is written there.

    Its beginning is searched, not parsed: there may be ten thousand pairs, and this is the loop of
    a proxy, which nobody may keep busy.
    """
    found = _FIRST.search(body, 0, _LOOKED_AT)
    if found is None:
        return None
    text = found[1] if found[1] is not None else found[2]
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError:
        return None
