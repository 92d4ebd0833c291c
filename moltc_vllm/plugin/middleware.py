"""ASGI middleware: chat messages whose parts are all molecules.

Pydantic chooses between the request's message types by how well the parts fit; a message made
only of unknown parts is taken for a lazily validated type, which raises later. A ``uuid`` key, as
every multimodal part may have, makes it choose vLLM's own type. Nothing is asked of clients.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CHAT_PATHS = ("/chat/completions", "/tokenize", "/v1/messages", "/v1/responses")


class MoleculePartMiddleware:
    """Adds ``"uuid": null`` to molecule parts; everything else passes untouched."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].endswith(_CHAT_PATHS)
        ):
            await self.app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        changed = mark_molecule_parts(bytes(body))
        headers = [
            (name, value) for name, value in scope["headers"] if name != b"content-length"
        ] + [(b"content-length", str(len(changed)).encode())]
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": changed, "more_body": False}

        await self.app({**scope, "headers": headers}, replay, send)


def mark_molecule_parts(body: bytes) -> bytes:
    """Return the JSON body with marked molecule parts, or as it was if there are none."""
    if b'"molecule"' not in body:
        return body
    try:
        request = json.loads(body)
        parts = [
            part
            for message in request["messages"]
            if isinstance(message["content"], list)
            for part in message["content"]
            if isinstance(part, dict) and part.get("type") == "molecule"
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body  # not ours to judge: vLLM's own validation says what is wrong
    for part in parts:
        part.setdefault("uuid", None)
    return json.dumps(request).encode() if parts else body
