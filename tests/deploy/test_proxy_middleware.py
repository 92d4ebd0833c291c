"""Middleware in Serve's proxy: the affinity header, and retries after a replica died."""

import asyncio
import json
import time

import pytest

from moltc_vllm.deploy.asgi import RETRY_HEADERS, send_error
from moltc_vllm.deploy.proxy_middleware import RetryAffinityMiddleware, first_molecule, middlewares
from moltc_vllm.engines.affinity import AFFINITY_HEADER, affinity_key
from tests.deploy.asgi_client import SCOPE, FakeClient, read_body, send_response

BACKSLASH = "F/C=C\\F"
MOLBLOCK = "\n  x\n\n  0  0  0     0  0            999 V2000\nM  END\n"


def chat(*parts):
    content = [{"type": "text", "text": "What?"}, *parts]
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


def request(app, *chunks, headers=()):
    return FakeClient(*chunks).request(RetryAffinityMiddleware(app), headers)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("moltc_vllm.deploy.proxy_middleware.RETRY_PAUSE_S", 0)


@pytest.mark.parametrize(
    ("body", "molecule"),
    [
        ({"task": "ddi", "pairs": [["CCO", "O"], ["C", "N"]]}, "CCO"),
        ({"pairs": [[BACKSLASH, "O"]], "task": "ddi"}, BACKSLASH),
        ({"task": "ddi", "pairs": [[{"smiles": "CCN"}, "O"]]}, "CCN"),
        ({"task": "ddi", "pairs": [[{"molblock": MOLBLOCK}, "O"]]}, MOLBLOCK),
        (chat({"type": "molecule", "molecule": {"smiles": "CCO"}}), "CCO"),
        ({"model": "m", "prompt": "a [START_I_SMILES]CCO[END_I_SMILES] [START_I"}, "CCO"),
        ({"model": "m", "prompt": f"[START_SMILES]{BACKSLASH}[END_SMILES]"}, BACKSLASH),
        (chat(), None),
        ({"task": "ddi", "pairs": []}, None),
        ({"task": "ddi", "pairs": [[1, 2]]}, None),
        ([], None),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_first_molecule_is_found(body, molecule, indent):
    assert first_molecule(json.dumps(body, indent=indent).encode()) == molecule


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b'"smiles": "C\\x"', b'"smiles":"C', b'{"pairs']
)
def test_first_molecule_of_malformed_body_is_none(body):
    assert first_molecule(body) is None


@pytest.mark.parametrize(
    "unit",
    [b'"', b'"smiles": "', b"\\", b"[START_SMILES]", b'"pairs":[[', b" ", b'"pairs": [['],
)
def test_first_molecule_is_fast_on_adversarial_bodies(unit):
    begin = time.perf_counter()
    for prefix in (b"", b'"smiles": "', b"[START_SMILES]", b'"pairs": '):
        first_molecule(prefix + unit * 200_000)
    assert time.perf_counter() - begin < 2


def test_body_over_limit_is_refused(monkeypatch):
    monkeypatch.setattr("moltc_vllm.deploy.proxy_middleware.MAX_BODY_BYTES", 10)
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))
        await send_response(send)

    assert request(app, b"12345", b"12345").status == 200
    assert request(app, b"12345", b"123456", b"7").status == 413
    assert len(bodies) == 1


def test_request_is_not_retried_after_client_disconnected():
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))
        assert (await receive())["type"] == "http.disconnect"

    client = FakeClient(b"{}")
    client.messages.append({"type": "http.disconnect"})
    asyncio.run(RetryAffinityMiddleware(app)(SCOPE, client.receive, client.send))
    assert len(bodies) == 1
    assert client.received == []


def test_affinity_header_is_added_unless_present():
    headers = []

    async def app(scope, receive, send):
        headers.append(dict(scope["headers"]).get(AFFINITY_HEADER.encode()))
        assert await read_body(receive) == b'{"pairs": [["CCO", "O"]]}'
        await send_response(send)

    request(app, b'{"pairs": [["CC', b'O", "O"]]}')
    request(app, b'{"pairs": [["CCO", "O"]]}', headers=[(AFFINITY_HEADER.encode(), b"mine")])
    assert headers == [affinity_key("CCO").encode(), b"mine"]


def test_request_is_retried_on_any_replica_after_replica_died():
    bodies, headers = [], []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))
        headers.append(dict(scope["headers"]).get(AFFINITY_HEADER.encode()))
        if len(bodies) == 1:
            return  # Serve's proxy sends no response when it loses an actor
        await send_response(send, body=b"yes")

    body = b'{"pairs": [["C", "O"]]}'
    client = request(app, body)
    assert bodies == [body, body]
    assert headers == [affinity_key("C").encode(), None]
    assert (client.status, client.received[1]["body"]) == (200, b"yes")


def test_error_of_dead_engine_is_retried():
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))
        if len(bodies) == 1:
            await send_error(send, 503, "the engine died", RETRY_HEADERS)
        else:
            await send_response(send)

    client = request(app)
    assert (client.status, len(client.received)) == (200, 2)


def test_retries_are_limited():
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))

    client = request(app)
    assert len(bodies) == 2
    assert client.status == 503
    assert RETRY_HEADERS.items() <= client.headers.items()


def test_started_response_is_not_retried():
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1", "more_body": True})

    client = request(app)
    assert len(bodies) == 1
    assert len(client.received) == 2


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_error_response_is_passed_on(status):
    calls = []

    async def app(scope, receive, send):
        calls.append(1)
        await send_response(send, status)

    assert request(app).status == status
    assert len(calls) == 1


def test_serve_accepts_middlewares():
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    (middleware,) = validate_http_proxy_callback_return(middlewares())
    assert middleware.cls is RetryAffinityMiddleware
