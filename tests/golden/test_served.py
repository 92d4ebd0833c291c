"""A converted checkpoint on the real server returns the texts of the published code."""

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
    return [record for record in Fixture(reference_dir()).records if record.raw["task"] == "ddi"]


def interaction_texts(server, records, **options):
    pairs = [list(record.pair.molecules) for record in records]
    body = {"task": "ddi", "pairs": pairs, "max_tokens": 24, **options}
    response = server.http.post("/v1/interactions", json=body)
    assert response.status_code == 200, response.text
    return [answer["text"] for answer in response.json()["data"]]


def test_interactions_returns_published_greedy_texts(server, records):
    assert interaction_texts(server, records) == [
        record.raw["greedy"]["text"] for record in records
    ]


def test_interactions_returns_published_beam_texts(server, records):
    expected = [record.raw["beam5"]["text"] for record in records]
    assert interaction_texts(server, records, beams=5) == expected


def test_beams_encode_each_molecule_once(server):
    before = server.metric("moltc_molecules_encoded_total")
    hits = server.metric("vllm:prefix_cache_hits_total")
    body = {"task": "ddi", "pairs": [["CCCCCCN", "CCCCCCO"]], "beams": 5, "max_tokens": 12}
    assert server.http.post("/v1/interactions", json=body).status_code == 200
    assert server.metric("moltc_molecules_encoded_total") - before == 2
    assert server.metric("vllm:prefix_cache_hits_total") > hits


def test_interactions_is_unconstrained_by_default(server):
    body = {"task": "ddi", "pairs": [["CCO", "O"]], "constrained": True}
    (answer,) = server.http.post("/v1/interactions", json=body).json()["data"]
    assert answer["label"] in ("interaction", "no_interaction")
    (free,) = server.http.post(
        "/v1/interactions", json={"task": "ddi", "pairs": [["CCO", "O"]]}
    ).json()["data"]
    assert free["status"] == "unparsed"
    assert "cut off after 29 tokens" in free["error"] or free["text"]


def test_interactions_rejects_invalid_beam_options(server):
    for options, reason in (
        ({"beams": 5, "constrained": True}, "beam search cannot follow a grammar"),
        ({"beams": 300}, "start with --max-logprobs 601"),
        ({"beams": 0}, "greater than or equal to 1"),
    ):
        body = {"task": "ddi", "pairs": [["CCO", "O"]], **options}
        response = server.http.post("/v1/interactions", json=body)
        assert response.status_code == 400
        assert reason in response.text


def test_http_engine_uses_beams(server, records):
    engine = HttpEngine(server.url, beams=5, batch_size=3)
    answers = dict(engine.submit("ddi", [Pair(0, records[0].pair.molecules)]))
    (answer,) = answers.values()
    assert answer.text.startswith(records[0].raw["beam5"]["text"][:20])


def test_chat_equals_published_tokens(server, records):
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
        token_ids = [
            int(entry.token.removeprefix("token_id:")) for entry in chat.choices[0].logprobs.content
        ]
        assert token_ids == record.raw["greedy"]["new_ids"]


def test_completion_of_published_prompt_equals_published_tokens(server):
    for record in Fixture(reference_dir()).records[:40:5]:
        completion = server.openai.completions.create(
            model=MODEL,
            prompt=_untruncated(record),
            temperature=0,
            max_tokens=24,
            logprobs=1,
            extra_body={"min_tokens": 7, "return_tokens_as_token_ids": True},
        )
        token_ids = [
            int(token.removeprefix("token_id:")) for token in completion.choices[0].logprobs.tokens
        ]
        assert token_ids == record.raw["greedy"]["new_ids"]


def _untruncated(record):
    """Return the published prompt with whole SMILES, because the graph is not truncated."""
    prompt = record.raw["raw_prompt"]
    for smiles in record.written:
        prompt = prompt.replace(f"]{smiles[:128]}[", f"]{smiles}[")
    return prompt
