"""A converted checkpoint behind the real server: clients get the published texts."""

import pytest

from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.plugin.server.server_process import ServerProcess
from moltc_vllm.tasks.engine import Pair
from tests.golden.fixture import Fixture
from tests.paths import reference_dir
from tests.server import MODEL, Server


@pytest.fixture(scope="module")
def server(published, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "server.log"
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    arguments = ["--served-model-name", MODEL]
    with ServerProcess(published, arguments, log=log, environment=environment) as process:
        yield Server(process.url)


@pytest.fixture(scope="module")
def records():
    return [r for r in Fixture(reference_dir()).records if r.raw["task"] == "ddi"]


def ask(server, records, **options):
    pairs = [list(record.pair.molecules) for record in records]
    body = {"task": "ddi", "pairs": pairs, "max_tokens": 24, **options}
    answer = server.http.post("/v1/interactions", json=body)
    assert answer.status_code == 200, answer.text
    return [one["text"] for one in answer.json()["data"]]


def test_interactions(server, records):
    assert ask(server, records) == [record.raw["greedy"]["text"] for record in records]


def test_interactions_with_beams(server, records):
    expected = [record.raw["beam5"]["text"] for record in records]
    assert ask(server, records, beams=5) == expected


def test_beams_encode_a_molecule_once(server):
    before = server.metric("moltc_molecules_encoded_total")
    hits = server.metric("vllm:prefix_cache_hits_total")
    body = {"task": "ddi", "pairs": [["CCCCCCN", "CCCCCCO"]], "beams": 5, "max_tokens": 12}
    assert server.http.post("/v1/interactions", json=body).status_code == 200
    assert server.metric("moltc_molecules_encoded_total") - before == 2
    assert server.metric("vllm:prefix_cache_hits_total") > hits


def test_answers_are_free_unless_asked_to_be_held(server):
    body = {"task": "ddi", "pairs": [["CCO", "O"]], "constrained": True}
    (answer,) = server.http.post("/v1/interactions", json=body).json()["data"]
    assert answer["label"] in ("interaction", "no_interaction")
    (free,) = server.http.post(
        "/v1/interactions", json={"task": "ddi", "pairs": [["CCO", "O"]]}
    ).json()["data"]
    assert free["status"] == "unparsed"
    assert "cut off after 29 tokens" in free["error"] or free["text"]


def test_what_beams_cannot_do_is_a_400(server):
    for options, reason in (
        ({"beams": 5, "constrained": True}, "cannot be held to a grammar"),
        ({"beams": 10}, "start with --max-logprobs 21"),
        ({"beams": 0}, "greater than or equal to 1"),
    ):
        body = {"task": "ddi", "pairs": [["CCO", "O"]], **options}
        answer = server.http.post("/v1/interactions", json=body)
        assert answer.status_code == 400
        assert reason in answer.text


def test_the_http_engine_with_beams(server, records):
    engine = HttpEngine(server.url, beams=5, batch=3)
    answers = dict(engine.submit("ddi", [Pair(0, records[0].pair.molecules)]))
    (answer,) = answers.values()
    assert answer.text.startswith(records[0].raw["beam5"]["text"][:20])


def test_chat_of_two_molecules_and_the_published_question(server, records):
    question = "What are the side effects of these two drugs?"
    for record in records[:6]:
        parts = [{"type": "molecule", "molecule": {"smiles": smiles}} for smiles in record.written]
        chat = server.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": [*parts, {"type": "text", "text": question}]}],
            temperature=0,
            max_tokens=24,
            logprobs=True,
            extra_body={"min_tokens": 7, "return_tokens_as_token_ids": True},
        )
        got = [int(t.token.removeprefix("token_id:")) for t in chat.choices[0].logprobs.content]
        assert got == record.raw["greedy"]["new_ids"]


def test_the_published_prompt_as_plain_text(server):
    for record in Fixture(reference_dir()).records[:40:5]:
        done = server.openai.completions.create(
            model=MODEL,
            prompt=_untruncated(record),
            temperature=0,
            max_tokens=24,
            logprobs=1,
            extra_body={"min_tokens": 7, "return_tokens_as_token_ids": True},
        )
        got = [int(token.removeprefix("token_id:")) for token in done.choices[0].logprobs.tokens]
        assert got == record.raw["greedy"]["new_ids"]


def _untruncated(record):
    """The published prompt with whole SMILES: the text shown is cut, the molecule is not."""
    prompt = record.raw["raw_prompt"]
    for smiles in record.written:
        prompt = prompt.replace(f"]{smiles[:128]}[", f"]{smiles}[")
    return prompt
