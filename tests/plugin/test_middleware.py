"""The middleware marks molecule parts and leaves everything else as it was."""

import asyncio
import json

import pytest

from moltc_vllm.plugin.middleware import MoleculePartMiddleware, mark_molecule_parts


def chat(content):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


def test_marks_molecules_only():
    part = {"type": "molecule", "molecule": {"smiles": "C"}}
    text = {"type": "text", "text": "molecule"}
    changed = json.loads(mark_molecule_parts(chat([part, text])))
    assert changed["messages"][0]["content"] == [{**part, "uuid": None}, text]


def test_keeps_a_given_uuid():
    part = {"type": "molecule", "molecule": {"smiles": "C"}, "uuid": "x"}
    assert json.loads(mark_molecule_parts(chat([part])))["messages"][0]["content"] == [part]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"molecule"',
        b'"molecule"',
        b'["molecule"]',
        b'{"messages": 3, "type": "molecule"}',
        b'{"messages": [{"content": "a \\"molecule\\""}]}',
        b'{"messages": [{"role": "molecule"}], "x": "molecule"}',
        b"[" * 100_000 + b'"molecule"',
        b'\xff\xfe"molecule"',
        chat([{"type": "text", "text": "x"}]),
    ],
)
def test_anything_else_passes_untouched(body):
    assert mark_molecule_parts(body) == body


def run(scope, chunks):
    """What the app behind the middleware receives."""
    seen = {}

    async def app(scope, receive, send):
        seen["headers"] = dict(scope["headers"])
        seen["message"] = await receive()
        seen["next"] = await receive()

    messages = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
        for i, chunk in enumerate(chunks)
    ] + [{"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    asyncio.run(MoleculePartMiddleware(app)(scope, receive, None))
    return seen


def test_joins_chunks_and_corrects_the_length():
    body = chat([{"type": "molecule", "molecule": {"smiles": "C"}}])
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"content-length", str(len(body)).encode()), (b"x", b"y")],
    }
    seen = run(scope, [body[:20], body[20:]])
    assert json.loads(seen["message"]["body"])["messages"][0]["content"][0]["uuid"] is None
    assert int(seen["headers"][b"content-length"]) == len(seen["message"]["body"])
    assert seen["headers"][b"x"] == b"y"
    assert seen["next"]["type"] == "http.disconnect"  # a client that leaves is still noticed
