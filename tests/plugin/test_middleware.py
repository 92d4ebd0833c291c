"""The middleware completes molecule parts, model and task; other requests stay unchanged."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from vllm.exceptions import VLLMValidationError

from moltc_vllm.plugin.server.middleware import MoleculeMiddleware, prepare_request
from moltc_vllm.plugin.server.task_adapters import TaskAdapters, current_request_task

PART = {"type": "molecule", "molecule": {"smiles": "C"}}


def chat(content):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


def task_adapters(*names, tasks=("ddi", "solvation", "emission")):
    """Create the task adapters of a server with the names ``m`` and ``alias``."""
    models = SimpleNamespace(
        base_model_paths=[SimpleNamespace(name="m"), SimpleNamespace(name="alias")],
        lora_requests=dict.fromkeys(names),
        is_base_model=lambda name: name in ("m", "alias"),
    )
    return TaskAdapters(models, SimpleNamespace(tasks=list(tasks)))


ADAPTERS = task_adapters("m:ddi", "m:solvation", "m:other", "custom")


def test_middleware_adds_uuid_to_molecule_parts_only():
    part = {"type": "molecule", "molecule": {"smiles": "C"}}
    text = {"type": "text", "text": "molecule"}
    changed = json.loads(prepare_request(chat([part, text])).body)
    assert changed["messages"][0]["content"] == [{**part, "uuid": None}, text]


def test_middleware_keeps_given_uuid():
    part = {"type": "molecule", "molecule": {"smiles": "C"}, "uuid": "x"}
    assert json.loads(prepare_request(chat([part])).body)["messages"][0]["content"] == [part]


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
def test_body_without_molecule_parts_is_unchanged(body):
    assert prepare_request(body).body == body


def run(scope, chunks):
    """Run the middleware and return the data that the application behind it receives."""
    received = {}

    async def task_in_child_coroutine():
        return current_request_task()

    async def app(scope, receive, send):
        received["headers"] = dict(scope["headers"])
        received["message"] = await receive()
        received["task"] = await asyncio.create_task(task_in_child_coroutine())
        received["next"] = await receive()

    messages = [
        {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
        for index, chunk in enumerate(chunks)
    ] + [{"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    asyncio.run(MoleculeMiddleware(app)(scope, receive, None))
    return received


def scope_of(body, path="/v1/chat/completions", **more):
    headers = [(b"content-length", str(len(body)).encode()), (b"x", b"y")]
    return {"type": "http", "method": "POST", "path": path, "headers": headers, **more}


def test_middleware_joins_chunks_and_corrects_content_length():
    body = chat([{"type": "molecule", "molecule": {"smiles": "C"}}])
    received = run(scope_of(body), [body[:20], body[20:]])
    assert json.loads(received["message"]["body"])["messages"][0]["content"][0]["uuid"] is None
    assert int(received["headers"][b"content-length"]) == len(received["message"]["body"])
    assert received["headers"][b"x"] == b"y"
    assert received["next"]["type"] == "http.disconnect"  # still passed on
    assert received["task"] is None


def resolve(adapters=ADAPTERS, **request):
    """Return model and task of a prepared request, and check that the rest is unchanged."""
    body = json.dumps(request).encode()
    prepared = prepare_request(body, adapters)
    prepared_request = json.loads(prepared.body)
    assert {**prepared_request, "model": None} == {**request, "model": None}
    if prepared_request.get("model") == request.get("model"):
        assert prepared.body is body
    return prepared_request.get("model"), prepared.task


def user(**fields):
    return {"role": "user", "content": "Well?", **fields}


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
def test_task_selects_its_adapter(named):
    assert resolve(model="m", **named) == ("m:ddi", "ddi")
    assert resolve(model="alias", **named) == ("m:ddi", "ddi")
    assert resolve(**named) == ("m:ddi", "ddi")
    assert resolve(model="", **named) == ("m:ddi", "ddi")
    assert resolve(model="m:ddi", **named) == ("m:ddi", "ddi")
    # A model that is no task's adapter is kept and answers the task.
    assert resolve(model="m:other", **named) == ("m:other", "ddi")
    assert resolve(model="custom", **named) == ("custom", "ddi")
    assert resolve(model="unknown", **named) == ("unknown", "ddi")
    # The base model answers a task without an adapter.
    assert resolve(task_adapters("m:solvation"), model="m", **named) == ("m", "ddi")
    assert resolve(task_adapters(), model="m", **named) == ("m", "ddi")


def test_adapter_selects_its_task():
    assert resolve(model="m:ddi") == ("m:ddi", "ddi")
    for other in ("m", "alias", "m:other", "custom", "alias:ddi", "n:ddi", ":ddi", "ddi", ""):
        assert resolve(model=other) == (other, None)
    assert resolve() == (None, None)
    nested = task_adapters("m:ddi", tasks=("a:b",))
    assert resolve(nested, model="m:a:b") == ("m:a:b", None)


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
def test_conflict_is_stored_for_the_renderer(request_, reason):
    """The renderer raises the error, because vLLM's handlers do not see errors of a middleware."""
    body = json.dumps({"model": "m", **request_}).encode()
    prepared = prepare_request(body, ADAPTERS)
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
def test_body_without_valid_task_is_unchanged(body):
    assert prepare_request(body, ADAPTERS) == (body, None)


def test_task_is_set_only_while_the_request_runs():
    app = SimpleNamespace(
        state=SimpleNamespace(moltc_interactions=SimpleNamespace(adapters=ADAPTERS))
    )
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/messages/count_tokens"):
        body = json.dumps({"model": "m", "task": "ddi", "prompt": "x"}).encode()
        received = run(scope_of(body, path, app=app), [body])
        assert json.loads(received["message"]["body"])["model"] == "m:ddi"
        assert received["task"] == "ddi"
        assert current_request_task() is None
    # Other routes choose the adapter themselves, and a server without our endpoint has no tasks.
    for scope in (scope_of(body, "/v1/interactions", app=app), scope_of(body)):
        received = run(scope, [body])
        assert received["message"]["body"] == body
        assert received["task"] is None


def test_bodies_without_tasks_are_not_parsed_without_adapters(monkeypatch):
    monkeypatch.setattr(json, "loads", None)
    body = b'{"model": "m", "prompt": "' + b"x" * 1000 + b'"}'
    assert prepare_request(body, task_adapters()).body is body
    assert prepare_request(body).body is body
