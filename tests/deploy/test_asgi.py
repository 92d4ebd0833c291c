"""Middlewares around vLLM's application: client disconnects, dead engines, body limits."""

import asyncio

import pytest

from moltc_vllm.deploy.asgi import (
    RETRY_HEADERS,
    BodyLimitMiddleware,
    ClientDisconnectMiddleware,
    RetryableErrorMiddleware,
)
from tests.deploy.asgi_client import SCOPE, FakeClient, read_body, send_response

FASTAPI_SCOPE = {
    **SCOPE,
    "headers": [(b"content-type", b"application/json")],
    "query_string": b"",
    "root_path": "",
    "http_version": "1.1",
}


async def disconnect_during_request(app):
    """Cancel a request's task, as Serve does when the client disconnects."""
    client = FakeClient()
    task = asyncio.ensure_future(
        ClientDisconnectMiddleware(app)(SCOPE, client.receive, client.send)
    )
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_disconnect_message_reaches_application():
    events = []

    async def app(scope, receive, send):
        await read_body(receive)
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"  # every later call returns it too
        events.append("returned")

    asyncio.run(disconnect_during_request(app))
    assert events == ["returned"]


def test_application_that_ignores_disconnect_is_canceled(monkeypatch):
    monkeypatch.setattr("moltc_vllm.deploy.asgi._DISCONNECT_GRACE_S", 0.05)
    events = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("canceled")
            raise

    asyncio.run(disconnect_during_request(app))
    assert events == ["canceled"]


def test_disconnect_middleware_passes_request_and_response():
    async def app(scope, receive, send):
        await send_response(send, body=await read_body(receive))

    client = FakeClient(b"ab", b"c").request(ClientDisconnectMiddleware(app))
    assert (client.status, client.received[1]["body"]) == (200, b"abc")


def test_disconnect_middleware_passes_exceptions():
    async def app(scope, receive, send):
        raise KeyError("x")

    with pytest.raises(KeyError):
        FakeClient().request(ClientDisconnectMiddleware(app))


@pytest.mark.parametrize(("status", "engine_died"), [(500, False), (400, True), (200, True)])
def test_other_responses_are_not_replaced(status, engine_died):
    async def app(scope, receive, send):
        await send_response(send, status)

    client = FakeClient().request(RetryableErrorMiddleware(app, lambda: engine_died))
    assert client.status == status
    assert len(client.received) == 2


def test_error_of_dead_engine_becomes_retryable():
    async def app(scope, receive, send):
        await send_response(send, 500, b"EngineDeadError")

    client = FakeClient().request(RetryableErrorMiddleware(app, lambda: True))
    assert client.status == 503
    assert RETRY_HEADERS.items() <= client.headers.items()
    assert client.error["message"] == (
        "the replica's engine died and is being replaced; retry the request"
    )
    assert len(client.received) == 2


@pytest.mark.parametrize("has_length", [True, False])
def test_body_over_limit_is_refused(has_length):
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await read_body(receive))
        await send_response(send)

    def status(*chunks):
        length = str(sum(map(len, chunks))).encode()
        headers = [(b"content-length", length)] if has_length else []
        return FakeClient(*chunks).request(BodyLimitMiddleware(app, 10), headers).status

    assert status(b"12345", b"12345") == 200
    assert status(b"12345", b"123456") == 413
    assert len(bodies) == 1


def test_body_over_limit_is_413_with_fastapi():
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/v1/x")
    async def route(body: dict) -> dict:
        return body

    def status(*chunks):
        client = FakeClient(*chunks)
        asyncio.run(BodyLimitMiddleware(app, 10)(FASTAPI_SCOPE, client.receive, client.send))
        return client.status

    assert status(b'{"a": "', b'12345678"}') == 413
    assert status(b'{"a"', b": 1}") == 200


def test_invalid_content_length_is_refused():
    async def app(scope, receive, send):
        raise AssertionError

    headers = [(b"content-length", b"-1")]
    assert FakeClient().request(BodyLimitMiddleware(app, 10), headers).status == 413


@pytest.mark.parametrize(
    "wrap",
    [
        ClientDisconnectMiddleware,
        lambda app: RetryableErrorMiddleware(app, bool),
        lambda app: BodyLimitMiddleware(app, 1),
    ],
)
def test_other_connections_pass(wrap):
    types = []

    async def app(scope, receive, send):
        types.append(scope["type"])

    asyncio.run(wrap(app)({"type": "lifespan"}, None, None))
    assert types == ["lifespan"]
