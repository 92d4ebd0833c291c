"""What stands around vLLM's application: clients that leave, engines that die, bodies too long."""

import asyncio
import json

import pytest

from moltc_vllm.deploy.asgi import (
    RETRY,
    BodyLimitMiddleware,
    ClientDisconnectMiddleware,
    RetryableErrorMiddleware,
)

SCOPE = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
MORE = {  # what FastAPI looks at
    "headers": [(b"content-type", b"application/json")],
    "query_string": b"",
    "root_path": "",
    "http_version": "1.1",
}


class Client:
    """Sends a body, then waits, and keeps what it gets."""

    def __init__(self, *chunks):
        self.messages = [
            {"type": "http.request", "body": chunk, "more_body": number + 1 < len(chunks)}
            for number, chunk in enumerate(chunks or [b"{}"])
        ]
        self.got = []

    async def receive(self):
        while not self.messages:
            await asyncio.sleep(60)
        return self.messages.pop(0)

    async def send(self, message):
        self.got.append(message)

    @property
    def status(self):
        return self.got[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.got[0]["headers"]}

    @property
    def error(self):
        return json.loads(self.got[1]["body"])["error"]


async def answer(send, status=200, body=b"{}"):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


async def left_by_its_client(app):
    """As Serve does it: the task is cancelled."""
    client = Client()
    task = asyncio.ensure_future(
        ClientDisconnectMiddleware(app)(SCOPE, client.receive, client.send)
    )
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_client_that_leaves_is_told():
    ended = []

    async def app(scope, receive, send):
        await read(receive)
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"  # however often it asks
        ended.append("well")

    asyncio.run(left_by_its_client(app))
    assert ended == ["well"]


def test_one_that_does_not_listen_is_ended(monkeypatch):
    monkeypatch.setattr("moltc_vllm.deploy.asgi._LEAVING_S", 0.05)
    ended = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    asyncio.run(left_by_its_client(app))
    assert ended == ["cancelled"]


def test_nothing_changes_for_one_that_stays():
    async def app(scope, receive, send):
        await answer(send, body=await read(receive))

    client = Client(b"ab", b"c")
    asyncio.run(ClientDisconnectMiddleware(app)(SCOPE, client.receive, client.send))
    assert (client.status, client.got[1]["body"]) == (200, b"abc")


def test_errors_come_through():
    async def app(scope, receive, send):
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(ClientDisconnectMiddleware(app)(SCOPE, Client().receive, Client().send))


@pytest.mark.parametrize(("status", "broken"), [(500, False), (400, True), (200, True)])
def test_other_answers_stay(status, broken):
    async def app(scope, receive, send):
        await answer(send, status)

    client = Client()
    asyncio.run(RetryableErrorMiddleware(app, lambda: broken)(SCOPE, client.receive, client.send))
    assert client.status == status
    assert len(client.got) == 2


def test_a_dead_engine_means_try_again():
    async def app(scope, receive, send):
        await answer(send, 500, b"EngineDeadError")

    client = Client()
    asyncio.run(RetryableErrorMiddleware(app, lambda: True)(SCOPE, client.receive, client.send))
    assert client.status == 503
    assert RETRY.items() <= client.headers.items()
    assert client.error["message"] == "the engine died; another one is started"
    assert len(client.got) == 2


@pytest.mark.parametrize("told", [True, False])
def test_what_is_too_long_is_refused(told):
    reached = []

    async def app(scope, receive, send):
        reached.append(await read(receive))
        await answer(send)

    def status(*chunks):
        client = Client(*chunks)
        length = str(sum(map(len, chunks))).encode()
        scope = {**SCOPE, "headers": [(b"content-length", length)] if told else []}
        asyncio.run(BodyLimitMiddleware(app, 10)(scope, client.receive, client.send))
        return client.status

    assert status(b"12345", b"12345") == 200
    assert status(b"12345", b"123456") == 413
    assert len(reached) == 1


def test_a_body_that_is_too_long_is_413_from_fastapi_too():
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/v1/x")
    async def route(body: dict) -> dict:
        return body

    client = Client(b'{"a": "', b'12345678"}')
    asyncio.run(BodyLimitMiddleware(app, 10)({**SCOPE, **MORE}, client.receive, client.send))
    assert client.status == 413
    client = Client(b'{"a"', b": 1}")
    asyncio.run(BodyLimitMiddleware(app, 10)({**SCOPE, **MORE}, client.receive, client.send))
    assert client.status == 200


def test_a_length_that_is_none_is_refused():
    async def app(scope, receive, send):
        raise AssertionError

    client = Client()
    scope = {**SCOPE, "headers": [(b"content-length", b"-1")]}
    asyncio.run(BodyLimitMiddleware(app, 10)(scope, client.receive, client.send))
    assert client.status == 413


@pytest.mark.parametrize(
    "wrap",
    [
        ClientDisconnectMiddleware,
        lambda app: RetryableErrorMiddleware(app, bool),
        lambda app: BodyLimitMiddleware(app, 1),
    ],
)
def test_what_is_no_request_passes(wrap):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(wrap(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
