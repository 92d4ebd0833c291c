"""`HttpEngine` against a fake server."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import httpx
import pytest

from moltc_vllm.engines.factory import describe_model, open_engine
from moltc_vllm.engines.http import HttpEngine, ServerError
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.screening.fake_engines import answer_of


@pytest.fixture
def server():
    """Start a server that answers like `answer_of` unless ``server.respond`` returns a response."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with fake.lock:
                fake.open_count += 1
                fake.max_open_count = max(fake.max_open_count, fake.open_count)
            status, content = fake.respond(body) or (200, answers(body))
            with fake.lock:
                fake.open_count -= 1
            self.reply(status, content)

        def do_GET(self):
            self.reply(200, {"data": fake.models, "weights": fake.weights, **fake.extra})

        def reply(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            for name, value in fake.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    def answers(body):
        task = get_task(body["task"])
        return {"data": [answer_of(task, pair).model_dump() for pair in body["pairs"]]}

    fake = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.lock, fake.open_count, fake.max_open_count = threading.Lock(), 0, 0
    fake.respond, fake.headers = (lambda body: None), {}
    fake.models = [{"id": "moltc-mini"}, {"id": "moltc-mini:ddi", "parent": "moltc-mini"}]
    fake.weights, fake.extra = None, {}
    fake.url = f"http://127.0.0.1:{fake.server_port}"
    thread = threading.Thread(target=fake.serve_forever)
    thread.start()
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


PAIRS = [Pair(100 + index, ("C" * (index + 1), "O")) for index in range(23)]


def test_submit_answers_every_pair_once_with_concurrent_requests(server):
    server.respond = lambda body: time.sleep(0.05)
    engine = HttpEngine(server.url, batch_size=4, max_in_flight=3)
    drawn = []

    def pairs():
        for pair in PAIRS:
            drawn.append(pair)
            yield pair

    answers = {}
    for pair, answer in engine.submit("solvation", pairs()):
        if not answers:
            assert len(drawn) == 12  # the pairs of three requests
        assert pair.row not in answers
        answers[pair.row] = answer
    task = get_task("solvation")
    assert answers == {pair.row: answer_of(task, pair.molecules) for pair in PAIRS}
    assert server.max_open_count == 3


def test_submit_retries_while_server_is_unavailable(server):
    calls = count()
    server.respond = lambda body: (503, {}) if next(calls) < 2 else None
    engine = HttpEngine(server.url, max_in_flight=1, retry_delays_s=(0, 0))
    assert len(list(engine.submit("ddi", PAIRS))) == 23
    assert next(calls) == 3
    server.respond = lambda body: (503, {"error": {"message": "busy"}})
    with pytest.raises(ServerError, match="busy"):
        list(engine.submit("ddi", PAIRS))


@pytest.mark.parametrize(("retry_after", "min_s"), [("1", 1.0), ("soon", 0.0), (None, 0.0)])
def test_submit_waits_as_long_as_retry_after_says(server, retry_after, min_s):
    calls = count()
    server.headers = {} if retry_after is None else {"retry-after": retry_after}
    server.respond = lambda body: (429, {}) if next(calls) < 1 else None
    engine = HttpEngine(server.url, max_in_flight=1, retry_delays_s=(0,))
    started_at = time.monotonic()
    assert len(list(engine.submit("ddi", PAIRS))) == 23
    assert min_s <= time.monotonic() - started_at < min_s + 0.9


def test_rejected_batch_ends_the_retries_of_others(server):
    """One batch is rejected while others would wait for minutes before their next attempt."""
    calls = count()
    server.respond = lambda body: (
        (503, {}) if next(calls) < 3 else (400, {"error": {"message": "unknown task"}})
    )
    engine = HttpEngine(server.url, batch_size=6, max_in_flight=4, retry_delays_s=(100, 100))
    started_at = time.monotonic()
    with pytest.raises(ServerError, match="unknown task"):
        list(engine.submit("ddi", PAIRS))
    assert time.monotonic() - started_at < 20


def test_submit_raises_if_server_cannot_be_reached():
    engine = HttpEngine("http://127.0.0.1:9", retry_delays_s=(0,))
    with pytest.raises(httpx.TransportError):
        list(engine.submit("ddi", PAIRS))


def test_submit_does_not_retry_rejected_request(server):
    calls = []

    def reject(body):
        calls.append(body)
        return 400, {"error": {"message": "unknown task"}}

    server.respond = reject
    with pytest.raises(ServerError, match=r"^unknown task$"):
        list(HttpEngine(server.url, max_in_flight=1).submit("ddi", PAIRS))
    assert len(calls) == 1


def test_served_model_is_the_given_or_only_one(server):
    assert HttpEngine(server.url).served_model() == "moltc-mini"
    assert HttpEngine(server.url, model="moltc-mini").served_model() == "moltc-mini"
    with pytest.raises(ServerError, match=r"no model .other.; there are moltc-mini$"):
        HttpEngine(server.url, model="other").served_model()
    server.models.append({"id": "second"})
    with pytest.raises(ServerError, match="name one of the models: moltc-mini, second"):
        HttpEngine(server.url).served_model()


def test_describe_model_includes_checksum_of_weights(server):
    server.models = [{"id": "ddi"}]  # its only task has the same name
    assert describe_model("ddi", endpoint=server.url) == {"served": "ddi", "weights": None}
    server.weights = "ab12"
    assert describe_model("ddi", endpoint=server.url) == {"served": "ddi", "weights": "ab12"}
    with pytest.raises(ValueError, match="does not answer 'solvation'"):
        describe_model("solvation", endpoint=server.url)


def test_ignores_order_is_asked_of_the_server(server):
    server.models = [{"id": "ddi", "ignores_order": True}, {"id": "ddi_type"}]
    engine = HttpEngine(server.url)
    assert engine.ignores_order("ddi")
    assert not engine.ignores_order("ddi_type")  # as of servers that do not say it
    assert not engine.ignores_order("solvation")


def test_coverage_is_sent_unless_it_is_the_default(server):
    bodies = []

    def respond(body):
        bodies.append(body)

    server.respond = respond
    list(HttpEngine(server.url).submit("solvation", PAIRS[:1]))
    list(HttpEngine(server.url, coverage=0.9).submit("solvation", PAIRS[:1]))
    assert "coverage" not in bodies[0]  # servers of version 0.1 reject unknown fields
    assert bodies[1]["coverage"] == 0.9
    with pytest.raises(ValueError, match="between 0 and 1"):
        HttpEngine(server.url, coverage=80)


def test_standardization_is_that_of_the_server(server):
    assert HttpEngine(server.url).standardization() == "as-drawn"  # servers before version 0.2
    assert "standardization" not in describe_model("moltc-mini", endpoint=server.url)
    server.extra = {"standardization": "cleanup"}
    assert HttpEngine(server.url).standardization() == "cleanup"
    for standardize in (None, "cleanup"):
        description = describe_model("moltc-mini", endpoint=server.url, standardize=standardize)
        assert description["standardization"] == "cleanup"
        open_engine(None, server.url, standardize=standardize)
    with pytest.raises(ValueError, match="uses standardization 'cleanup', not 'parent'"):
        open_engine(None, server.url, standardize="parent")
    with pytest.raises(ValueError, match="'all' is not one of as-drawn, cleanup, parent"):
        open_engine(None, server.url, standardize="all")
    server.extra = {"standardization": "later"}
    with pytest.raises(ServerError, match="not that of a moltc-vllm server of this version"):
        HttpEngine(server.url).standardization()


def test_notes_of_the_server_are_kept(server):
    ((_, answer),) = HttpEngine(server.url).submit("solvation", [Pair(0, ("[NH4+]", "O"))])
    assert answer.notes == ("solute: charged",)


def test_interval_and_familiarity_of_the_server_are_kept(server):
    ((pair, answer),) = HttpEngine(server.url).submit("solvation", PAIRS[:1])
    expected = answer_of(get_task("solvation"), pair.molecules)
    assert answer == expected
    assert answer.low < answer.value < answer.high
    assert answer.familiarity is not None
