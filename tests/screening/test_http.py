"""The HTTP engine against a server of a few lines."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import httpx
import pytest

from moltc_vllm.engines.factory import describe_model
from moltc_vllm.engines.http import HttpEngine, ServerError
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.screening.engines import answer_of


@pytest.fixture
def server():
    """Answers as `answer_of`; ``server.respond`` may do something else first."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with made.lock:
                made.open += 1
                made.most_open = max(made.most_open, made.open)
            status, content = made.respond(body) or (200, answers(body))
            with made.lock:
                made.open -= 1
            self.reply(status, content)

        def do_GET(self):
            self.reply(200, {"data": made.models, "weights": made.weights})

        def reply(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    def answers(body):
        task = get_task(body["task"])
        return {"data": [answer_of(task, pair).model_dump() for pair in body["pairs"]]}

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.lock, made.open, made.most_open = threading.Lock(), 0, 0
    made.respond, made.headers = (lambda body: None), {}
    made.models = [{"id": "moltc-mini"}, {"id": "moltc-mini:ddi", "parent": "moltc-mini"}]
    made.weights = None
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


PAIRS = [Pair(100 + n, ("C" * (n + 1), "O")) for n in range(23)]


def test_every_pair_once_with_many_on_their_way(server):
    server.respond = lambda body: time.sleep(0.05)
    engine = HttpEngine(server.url, batch=4, in_flight=3)
    drawn = []

    def pairs():
        for pair in PAIRS:
            drawn.append(pair)
            yield pair

    found = {}
    for pair, answer in engine.submit("solvation", pairs()):
        if not found:
            assert len(drawn) == 12  # no more than are on their way
        assert pair.row not in found
        found[pair.row] = answer
    task = get_task("solvation")
    assert found == {pair.row: answer_of(task, pair.molecules) for pair in PAIRS}
    assert server.most_open == 3


def test_a_server_that_is_away_for_a_moment(server):
    calls = count()
    server.respond = lambda body: (503, {}) if next(calls) < 2 else None
    engine = HttpEngine(server.url, in_flight=1, waits_s=(0, 0))
    assert len(list(engine.submit("ddi", PAIRS))) == 23
    assert next(calls) == 3
    server.respond = lambda body: (503, {"error": {"message": "busy"}})
    with pytest.raises(ServerError, match="busy"):
        list(engine.submit("ddi", PAIRS))


@pytest.mark.parametrize(("config", "least_s"), [("1", 1.0), ("soon", 0.0), (None, 0.0)])
def test_a_server_says_when_to_come_again(server, config, least_s):
    calls = count()
    server.headers = {} if config is None else {"retry-after": config}
    server.respond = lambda body: (429, {}) if next(calls) < 1 else None
    engine = HttpEngine(server.url, in_flight=1, waits_s=(0,))
    begin = time.monotonic()
    assert len(list(engine.submit("ddi", PAIRS))) == 23
    assert least_s <= time.monotonic() - begin < least_s + 0.9


def test_nobody_waits_for_a_server_once_it_is_over(server):
    """One batch is refused while others wait for minutes until they ask again."""
    calls = count()
    server.respond = lambda body: (
        (503, {}) if next(calls) < 3 else (400, {"error": {"message": "unknown task"}})
    )
    engine = HttpEngine(server.url, batch=6, in_flight=4, waits_s=(100, 100))
    begin = time.monotonic()
    with pytest.raises(ServerError, match="unknown task"):
        list(engine.submit("ddi", PAIRS))
    assert time.monotonic() - begin < 20


def test_a_server_that_is_not_there():
    engine = HttpEngine("http://127.0.0.1:9", waits_s=(0,))
    with pytest.raises(httpx.TransportError):
        list(engine.submit("ddi", PAIRS))


def test_a_refusal_is_not_asked_again(server):
    calls = []

    def refuse(body):
        calls.append(body)
        return 400, {"error": {"message": "unknown task"}}

    server.respond = refuse
    with pytest.raises(ServerError, match=r"^unknown task$"):
        list(HttpEngine(server.url, in_flight=1).submit("ddi", PAIRS))
    assert len(calls) == 1


def test_the_model_that_answers(server):
    assert HttpEngine(server.url).served() == "moltc-mini"
    assert HttpEngine(server.url, model="moltc-mini").served() == "moltc-mini"
    with pytest.raises(ServerError, match=r"no model .other.; there are moltc-mini$"):
        HttpEngine(server.url, model="other").served()
    server.models.append({"id": "second"})
    with pytest.raises(ServerError, match="name one of the models: moltc-mini, second"):
        HttpEngine(server.url).served()


def test_other_weights_under_the_same_name_are_another_model(server):
    server.models = [{"id": "ddi"}]  # also its one task
    assert describe_model("ddi", endpoint=server.url) == {"served": "ddi", "weights": None}
    server.weights = "ab12"
    assert describe_model("ddi", endpoint=server.url) == {"served": "ddi", "weights": "ab12"}
    with pytest.raises(ValueError, match="does not answer 'solvation'"):
        describe_model("solvation", endpoint=server.url)
