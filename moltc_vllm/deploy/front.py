"""A thin layer in Serve's HTTP proxy: which molecule a request is about, and a second try.

Ray calls `middlewares` when its proxies start, if the cluster was started with the variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=moltc_vllm.deploy.front:middlewares``; ``moltc deploy``
does so. HAProxy, where Serve uses it, is not asked: its clients try again by themselves.
"""

from __future__ import annotations

import json
import logging
import re

from starlette.middleware import Middleware

from moltc_vllm.affinity import HEADER, affinity_key
from moltc_vllm.deploy.asgi import RETRY, App, Message, Receive, Scope, Send, respond

TRIES = 2
"""A request that kills engines must not kill all of them."""

_logger = logging.getLogger("ray.serve")
_TEXT = rb'"((?:[^"\\]|\\.)*)"'
_FIRST = re.compile(
    rb'"(?:pairs"\s*:\s*\[\s*\[\s*|smiles"\s*:\s*|molblock"\s*:\s*)'
    + _TEXT
    # of a text prompt; what stands between the marks has no quotes, or escaped ones
    + rb"|\[START_(?:I_)?SMILES\](.*?)\[END_(?:I_)?SMILES\]"
)


def middlewares() -> list[Middleware]:
    """What Serve's HTTP proxy puts around itself."""
    return [Middleware(SecondTry)]


class SecondTry:
    """Name a request's first molecule, and send it again when its replica died under it.

    Both need the body. Nothing is sent twice of which the client has seen a beginning.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        whole = bytes(body)
        named = _named(scope, whole)
        for left in reversed(range(TRIES)):
            attempt = _Attempt(send)
            await self.app({**named}, _replayed(whole, receive), attempt.send)
            if not attempt.lost:
                return
            if left:
                _logger.warning("a replica died: %s is sent again", scope["path"])
        await respond(send, 503, "a replica died; another one is started", RETRY)


class _Attempt:
    """One attempt's answer; ``lost`` if there was none, or none but that of a dead engine."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    @property
    def lost(self) -> bool:
        return not self._begun

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self._begun = not all(
                headers.get(name.encode()) == value.encode() for name, value in RETRY.items()
            )
        if self._begun:
            await self._send(message)


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


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

    The body is searched, not parsed: it may have ten thousand pairs, and this is a proxy's loop.
    """
    found = _FIRST.search(body)
    if found is None:
        return None
    text = found[1] if found[1] is not None else found[2]
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError:
        return None
