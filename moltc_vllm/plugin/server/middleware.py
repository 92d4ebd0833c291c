"""ASGI middleware that completes requests before vLLM validates them.

Molecules: Pydantic chooses the message type that fits the content parts best. For unknown parts it
chooses a lazily validated type, which raises an error later. A ``uuid`` key, which every multimodal
part may have, makes Pydantic choose vLLM's own type instead, so the middleware adds the key.

Tasks: ``model`` becomes the adapter of the task that a request names, and the renderer learns the
task of the adapter that it names (`moltc_vllm.plugin.server.task_adapters`).
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
    """Middleware that prepares the requests of text routes and passes all others unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].endswith(_PATHS)
        ):
            await self.app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            return
        prepared = prepare_request(body, _task_adapters(scope))
        headers = [
            (name, value) for name, value in scope["headers"] if name != b"content-length"
        ] + [(b"content-length", str(len(prepared.body)).encode())]
        is_body_sent = False

        async def receive_prepared() -> Message:
            nonlocal is_body_sent
            if is_body_sent:
                return await receive()  # reports when the client disconnects
            is_body_sent = True
            return {"type": "http.request", "body": prepared.body, "more_body": False}

        with request_task_scope(prepared.task):
            await self.app({**scope, "headers": headers}, receive_prepared, send)


class PreparedRequest(NamedTuple):
    """A completed request.

    Attributes:
        body: JSON body.
        task: Name of its task, if it has one, or the error to answer it with.
    """

    body: bytes
    task: str | VLLMValidationError | None = None


def prepare_request(body: bytes, adapters: TaskAdapters | None = None) -> PreparedRequest:
    """Add ``uuid`` keys to molecule parts and complete model and task.

    Args:
        body: JSON body of the request; returned unchanged if there is nothing to complete, or if
            it is malformed, which vLLM's own validation reports.
        adapters: Tasks and adapters of the server; without them model and task stay unchanged.
    """
    if not _needs_parsing(body, adapters):
        return PreparedRequest(body)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return PreparedRequest(body)
    if not isinstance(request, dict):
        return PreparedRequest(body)
    is_changed = _add_uuids(request)
    task: str | VLLMValidationError | None = None
    model = request.get("model")
    if adapters is not None and (model is None or isinstance(model, str)):
        try:
            resolved_model, task = adapters.resolve(model, _named_task(request))
            if resolved_model != model:
                request["model"] = resolved_model
                is_changed = True
        except VLLMValidationError as error:
            task = error
    return PreparedRequest(json.dumps(request).encode() if is_changed else body, task)


async def _read_body(receive: Receive) -> bytes | None:
    """Read the whole body; return ``None`` if the client disconnects before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _task_adapters(scope: Scope) -> TaskAdapters | None:
    """Return the task adapters of the server's `InteractionsService`, if it has one."""
    state = getattr(scope.get("app"), "state", None)
    service = getattr(state, "moltc_interactions", None)
    return None if service is None else service.adapters


def _needs_parsing(body: bytes, adapters: TaskAdapters | None) -> bool:
    """Return whether a body can have molecule parts, a task or the name of an adapter."""
    return (
        b'"molecule"' in body
        or b'"task"' in body
        or (adapters is not None and adapters.has_adapters())
    )


def _add_uuids(request: dict[str, Any]) -> bool:
    """Add a ``uuid`` key to molecule parts; return whether any part lacked it."""
    is_changed = False
    for part in _molecule_parts(request):
        is_changed |= "uuid" not in part
        part.setdefault("uuid", None)
    return is_changed


def _named_task(request: dict[str, Any]) -> str | None:
    """Return the task that a request names at its top level, in messages or in molecules.

    Raises:
        VLLMValidationError: If a task is not a string, or the request names two different tasks.
    """
    template = request.get("chat_template_kwargs")
    holders = [request, template, *_messages(request)]
    holders += [part.get("molecule") for part in _molecule_parts(request)]
    tasks = []
    for holder in holders:
        task = holder.get("task") if isinstance(holder, dict) else None
        if task is None or task in tasks:
            continue
        if not isinstance(task, str):
            raise VLLMValidationError(
                f"a task is a string, not {type(task).__name__}", parameter="task"
            )
        tasks.append(task)
    if len(tasks) > 1:
        raise VLLMValidationError(
            f"a request is for one task, not for {tasks[0]!r:.100} and {tasks[1]!r:.100}",
            parameter="task",
        )
    return tasks[0] if tasks else None


def _messages(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the well-formed messages of a conversation, or of a batch of conversations."""
    items = request.get("messages")
    for item in items if isinstance(items, list) else ():
        for message in item if isinstance(item, list) else (item,):
            if isinstance(message, dict):
                yield message


def _molecule_parts(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in _messages(request):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "molecule":
                yield part
