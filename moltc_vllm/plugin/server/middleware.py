"""ASGI middleware: what has to be seen, or put right, before vLLM validates a request.

Molecules: Pydantic chooses between the request's message types by how well the parts fit; a message
made only of unknown parts is taken for a lazily validated type, which raises later. A ``uuid`` key,
as every multimodal part may have, makes it choose vLLM's own type. Nothing is asked of clients.

Tasks: ``model`` becomes the adapter of the task that a request names, and the task of the adapter
that it names becomes known to the renderer (`moltc_vllm.plugin.server.task_adapters`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.exceptions import VLLMValidationError

from moltc_vllm.plugin.server.task_adapters import TaskAdapters, request_task_scope

_ROUTES = ("/completions", "/tokenize", "/v1/messages", "/v1/responses")
_VARIANTS = ("", "/render", "/batch", "/count_tokens")
_PATHS = tuple(route + variant for route in _ROUTES for variant in _VARIANTS)


class MoleculeMiddleware:
    """Prepares the requests of text routes; everything else passes untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].endswith(_PATHS)
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
        prepared = prepare_body(bytes(body), _adapters(scope))
        headers = [
            (name, value) for name, value in scope["headers"] if name != b"content-length"
        ] + [(b"content-length", str(len(prepared.body)).encode())]
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": prepared.body, "more_body": False}

        with request_task_scope(prepared.task):
            await self.app({**scope, "headers": headers}, replay, send)


class Prepared(NamedTuple):
    """A request's body, and the task it asks."""

    body: bytes
    task: str | VLLMValidationError | None = None


def prepare_body(body: bytes, adapters: TaskAdapters | None = None) -> Prepared:
    """Mark molecule parts, and fit model and task to each other; else leave the body as it is.

    Args:
        body: JSON, as it came.
        adapters: Of the server; without them tasks are not looked at.
    """
    if b'"molecule"' not in body and b'"task"' not in body and not (adapters and adapters.any()):
        return Prepared(body)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return Prepared(body)  # not ours to judge: vLLM's own validation says what is wrong
    if not isinstance(request, dict):
        return Prepared(body)
    changed = False
    for part in _molecule_parts(request):
        changed |= "uuid" not in part
        part.setdefault("uuid", None)
    task: str | VLLMValidationError | None = None
    model = request.get("model")
    if adapters is not None and (model is None or isinstance(model, str)):
        try:
            chosen, task = adapters.choose(model, _task(request))
            if chosen != model:
                request["model"] = chosen
                changed = True
        except VLLMValidationError as error:
            task = error  # raised by the renderer: vLLM's handlers are in there
    return Prepared(json.dumps(request).encode() if changed else body, task)


def _adapters(scope: Scope) -> TaskAdapters | None:
    """The server's, which our endpoint plugin has put there."""
    state = getattr(scope.get("app"), "state", None)
    service = getattr(state, "moltc_interactions", None)
    return None if service is None else service.adapters


def _task(request: dict[str, Any]) -> str | None:
    """The one task that a request names, in whichever of the places.

    Raises:
        VLLMValidationError: If it names several, or something else.
    """
    template = request.get("chat_template_kwargs")
    holders = [request, template, *_messages(request)]
    holders += [part.get("molecule") for part in _molecule_parts(request)]
    named = []
    for holder in holders:
        task = holder.get("task") if isinstance(holder, dict) else None
        if task is None or task in named:
            continue
        if not isinstance(task, str):
            raise VLLMValidationError(
                f"a task is a string, not {type(task).__name__}", parameter="task"
            )
        named.append(task)
    if len(named) > 1:
        raise VLLMValidationError(
            f"a request is for one task, not for {named[0]!r:.100} and {named[1]!r:.100}",
            parameter="task",
        )
    return named[0] if named else None


def _messages(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        # A batch of conversations is a list of lists.
        for one in message if isinstance(message, list) else (message,):
            if isinstance(one, dict):
                yield one


def _molecule_parts(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in _messages(request):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "molecule":
                yield part
