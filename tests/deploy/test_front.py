"""The layer in Serve's proxy: the molecule's name, and a second try."""

import asyncio
import json
import time

import pytest

from moltc_vllm.deploy.asgi import RETRY, respond
from moltc_vllm.deploy.proxy_middleware import RetryAffinityMiddleware, first_molecule, middlewares
from moltc_vllm.engines.affinity import HEADER, affinity_key
from tests.deploy.test_asgi import SCOPE, Client, answer, read

BACKSLASH = "F/C=C\\F"
MOLBLOCK = "\n  x\n\n  0  0  0     0  0            999 V2000\nM  END\n"


def chat(*parts):
    content = [{"type": "text", "text": "What?"}, *parts]
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


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
def test_the_first_molecule_is_found(body, molecule, indent):
    assert first_molecule(json.dumps(body, indent=indent).encode()) == molecule


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b'"smiles": "C\\x"', b'"smiles":"C', b'{"pairs']
)
def test_what_is_no_json_names_nothing(body):
    assert first_molecule(body) is None


@pytest.mark.parametrize(
    "unit",
    [b'"', b'"smiles": "', b"\\", b"[START_SMILES]", b'"pairs":[[', b" ", b'"pairs": [['],
)
def test_nobody_keeps_the_proxy_busy(unit):
    begin = time.perf_counter()
    for before in (b"", b'"smiles": "', b"[START_SMILES]", b'"pairs": '):
        first_molecule(before + unit * 200_000)
    assert time.perf_counter() - begin < 2


def test_bodies_have_a_limit(monkeypatch):
    monkeypatch.setattr("moltc_vllm.deploy.proxy_middleware.MOST_BYTES", 10)
    reached = []

    async def app(scope, receive, send):
        reached.append(await read(receive))
        await answer(send)

    assert ask(app, b"12345", b"12345").status == 200
    assert ask(app, b"12345", b"123456", b"7").status == 413
    assert len(reached) == 1


def test_a_client_that_leaves_is_not_asked_for_again():
    tries = []

    async def app(scope, receive, send):
        tries.append(await read(receive))
        assert (await receive())["type"] == "http.disconnect"

    client = Client(b"{}")
    client.messages.append({"type": "http.disconnect"})
    asyncio.run(RetryAffinityMiddleware(app)(SCOPE, client.receive, client.send))
    assert len(tries) == 1
    assert client.got == []


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("moltc_vllm.deploy.proxy_middleware.PAUSE_S", 0)


def ask(app, *chunks, headers=()):
    client = Client(*chunks)
    scope = {**SCOPE, "headers": list(headers)}
    asyncio.run(RetryAffinityMiddleware(app)(scope, client.receive, client.send))
    return client


def test_the_header_says_which_molecule():
    seen = []

    async def app(scope, receive, send):
        seen.append(dict(scope["headers"]).get(HEADER.encode()))
        assert await read(receive) == b'{"pairs": [["CCO", "O"]]}'
        await answer(send)

    ask(app, b'{"pairs": [["CC', b'O", "O"]]}')
    ask(app, b'{"pairs": [["CCO", "O"]]}', headers=[(HEADER.encode(), b"mine")])
    assert seen == [affinity_key("CCO").encode(), b"mine"]


def test_a_replica_that_died_is_not_the_clients_business():
    tries = []

    names = []

    async def app(scope, receive, send):
        tries.append(await read(receive))
        names.append(dict(scope["headers"]).get(HEADER.encode()))
        if len(tries) == 1:
            return  # as Serve's proxy does when it loses an actor
        await answer(send, body=b"yes")

    body = b'{"pairs": [["C", "O"]]}'
    client = ask(app, body)
    assert tries == [body, body]
    assert names == [affinity_key("C").encode(), None]  # any replica may do it now
    assert (client.status, client.got[1]["body"]) == (200, b"yes")


def test_a_dead_engines_answer_is_not_passed_on():
    tries = []

    async def app(scope, receive, send):
        tries.append(await read(receive))
        if len(tries) == 1:
            await respond(send, 503, "the engine died", RETRY)
        else:
            await answer(send)

    client = ask(app)
    assert (client.status, len(client.got)) == (200, 2)


def test_it_does_not_try_for_ever():
    tries = []

    async def app(scope, receive, send):
        tries.append(await read(receive))

    client = ask(app)
    assert len(tries) == 2
    assert client.status == 503
    assert RETRY.items() <= client.headers.items()


def test_what_has_begun_is_not_begun_again():
    tries = []

    async def app(scope, receive, send):
        tries.append(await read(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1", "more_body": True})

    client = ask(app)
    assert len(tries) == 1
    assert len(client.got) == 2


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_refusals_are_passed_on(status):
    tries = []

    async def app(scope, receive, send):
        tries.append(1)
        await answer(send, status)

    assert ask(app).status == status
    assert len(tries) == 1


def test_serve_takes_it():
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    (one,) = validate_http_proxy_callback_return(middlewares())
    assert one.cls is RetryAffinityMiddleware
