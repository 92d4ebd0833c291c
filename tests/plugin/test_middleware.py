"""The middleware marks molecule parts and fits model and task; it leaves the rest as it was."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from vllm.exceptions import VLLMValidationError

from moltc_vllm.plugin.server.middleware import MoleculeMiddleware, prepare_body
from moltc_vllm.plugin.server.task_adapters import TaskAdapters, current_request_task

PART = {"type": "molecule", "molecule": {"smiles": "C"}}


def chat(content):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


def mark_molecule_parts(body):
    return prepare_body(body).body


def task_adapters(*names, tasks=("ddi", "solvation", "emission")):
    """Of a server with the names ``m`` and ``alias``."""
    models = SimpleNamespace(
        base_model_paths=[SimpleNamespace(name="m"), SimpleNamespace(name="alias")],
        lora_requests=dict.fromkeys(names),
        is_base_model=lambda name: name in ("m", "alias"),
    )
    return TaskAdapters(models, SimpleNamespace(tasks=list(tasks)))


ADAPTERS = task_adapters("m:ddi", "m:solvation", "m:house", "his")


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

    async def in_another_task():
        return current_request_task()

    async def app(scope, receive, send):
        seen["headers"] = dict(scope["headers"])
        seen["message"] = await receive()
        seen["task"] = await asyncio.create_task(in_another_task())
        seen["next"] = await receive()

    messages = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
        for i, chunk in enumerate(chunks)
    ] + [{"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    asyncio.run(MoleculeMiddleware(app)(scope, receive, None))
    return seen


def scope_of(body, path="/v1/chat/completions", **more):
    headers = [(b"content-length", str(len(body)).encode()), (b"x", b"y")]
    return {"type": "http", "method": "POST", "path": path, "headers": headers, **more}


def test_joins_chunks_and_corrects_the_length():
    body = chat([{"type": "molecule", "molecule": {"smiles": "C"}}])
    seen = run(scope_of(body), [body[:20], body[20:]])
    assert json.loads(seen["message"]["body"])["messages"][0]["content"][0]["uuid"] is None
    assert int(seen["headers"][b"content-length"]) == len(seen["message"]["body"])
    assert seen["headers"][b"x"] == b"y"
    assert seen["next"]["type"] == "http.disconnect"  # a client that leaves is still noticed
    assert seen["task"] is None


def prepared(adapters=ADAPTERS, **request):
    """Model and task that a request comes out with; the rest of its body stays."""
    body = json.dumps(request).encode()
    got = prepare_body(body, adapters)
    after = json.loads(got.body)
    assert {**after, "model": None} == {**request, "model": None}
    if after.get("model") == request.get("model"):
        assert got.body is body
    return after.get("model"), got.task


def user(**more):
    return {"role": "user", "content": "Well?", **more}


@pytest.mark.parametrize(
    "named",
    [
        {"task": "ddi"},
        {"chat_template_kwargs": {"task": "ddi"}},
        {"messages": [user(task="ddi")]},
        {"messages": [user(), user(task="ddi"), user(task="ddi")], "task": "ddi"},
        {"messages": [[user(task="ddi")], [user(task="ddi")]]},
        {"messages": [user(content=[{**PART, "uuid": None, "molecule": {"task": "ddi"}}])]},
    ],
)
def test_a_task_on_the_base_model_is_its_adapters(named):
    assert prepared(model="m", **named) == ("m:ddi", "ddi")
    assert prepared(model="alias", **named) == ("m:ddi", "ddi")
    assert prepared(**named) == ("m:ddi", "ddi")
    assert prepared(model="", **named) == ("m:ddi", "ddi")
    assert prepared(model="m:ddi", **named) == ("m:ddi", "ddi")
    # A model of another kind stays what it is, and is asked the task.
    assert prepared(model="m:house", **named) == ("m:house", "ddi")
    assert prepared(model="his", **named) == ("his", "ddi")
    assert prepared(model="unknown", **named) == ("unknown", "ddi")
    # Without an adapter of the task the base model answers it.
    assert prepared(task_adapters("m:solvation"), model="m", **named) == ("m", "ddi")
    assert prepared(task_adapters(), model="m", **named) == ("m", "ddi")


def test_an_adapters_name_is_its_task():
    assert prepared(model="m:ddi") == ("m:ddi", "ddi")
    for other in ("m", "alias", "m:house", "his", "alias:ddi", "n:ddi", ":ddi", "ddi", ""):
        assert prepared(model=other) == (other, None)
    assert prepared() == (None, None)
    nested = task_adapters("m:ddi", tasks=("a:b",))
    assert prepared(nested, model="m:a:b") == ("m:a:b", None)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (
            {"model": "m:ddi", "task": "solvation"},
            "'m:ddi' is the adapter of task 'ddi', not of 'solvation': name 'm:solvation'",
        ),
        (
            {"model": "m:ddi", "task": "emission"},
            "'m:ddi' is the adapter of task 'ddi', not of 'emission': name 'm' or no model",
        ),
        ({"task": "ddi", "messages": [user(task="emission")]}, "'ddi' and 'emission'"),
        ({"messages": [user(task="ddi"), user(task="emission")]}, "'ddi' and 'emission'"),
        ({"messages": [[user(task="ddi")], [user(task="emission")]]}, "'ddi' and 'emission'"),
        ({"task": "cooking"}, "unknown task 'cooking'; this checkpoint has ddi, solvation"),
        ({"task": 3}, "a task is a string, not int"),
        ({"task": {"a": "b"}}, "a task is a string, not dict"),
        ({"messages": [user(task=["ddi"])]}, "a task is a string, not list"),
    ],
)
def test_what_does_not_fit_is_raised_by_the_renderer(request_, reason):
    """There, because vLLM's handlers do not see what a middleware raises."""
    body = json.dumps({"model": "m", **request_}).encode()
    prepared = prepare_body(body, ADAPTERS)
    assert prepared.body == body
    assert reason in str(prepared.task)
    app = SimpleNamespace(
        state=SimpleNamespace(moltc_interactions=SimpleNamespace(adapters=ADAPTERS))
    )
    with pytest.raises(VLLMValidationError):
        run(scope_of(body, app=app), [body])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"task"',
        b'{"task": ',
        b'{"model": 3, "task": "ddi"}',
        b'{"model": ["m"], "task": "ddi"}',
        b'{"model": "m", "messages": [3, null, [4], {"content": [5]}]}',
        b'{"model": "m", "chat_template_kwargs": "task"}',
        b'{"model": "m", "task": null}',
        b'{"model": "m",   "prompt": "x"}',
    ],
)
def test_what_names_no_task_passes_untouched(body):
    assert prepare_body(body, ADAPTERS) == (body, None)


def test_the_task_is_known_while_the_request_runs_and_not_after():
    app = SimpleNamespace(
        state=SimpleNamespace(moltc_interactions=SimpleNamespace(adapters=ADAPTERS))
    )
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/messages/count_tokens"):
        body = json.dumps({"model": "m", "task": "ddi", "prompt": "x"}).encode()
        seen = run(scope_of(body, path, app=app), [body])
        assert json.loads(seen["message"]["body"])["model"] == "m:ddi"
        assert seen["task"] == "ddi"
        assert current_request_task() is None
    # Other routes look after themselves, and servers without our endpoint have no tasks.
    for scope in (scope_of(body, "/v1/interactions", app=app), scope_of(body)):
        seen = run(scope, [body])
        assert seen["message"]["body"] == body
        assert seen["task"] is None


def test_bodies_without_tasks_are_not_read_where_there_are_no_adapters(monkeypatch):
    monkeypatch.setattr(json, "loads", None)
    body = b'{"model": "m", "prompt": "' + b"x" * 1000 + b'"}'
    assert prepare_body(body, task_adapters()).body is body
    assert prepare_body(body).body is body
