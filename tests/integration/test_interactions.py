"""``POST /v1/interactions``: typed answers."""

import itertools
import time

import httpx
import pytest

from moltc_vllm.tasks import TASKS, Answer, get_task
from tests.molecules import DRUGS

ASPIRIN, WARFARIN = DRUGS["aspirin"], DRUGS["warfarin"]


def ask(server, task, pairs, **options):
    response = server.http.post("/v1/interactions", json={"task": task, "pairs": pairs, **options})
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["task"] == task
    return [Answer.model_validate(answer) for answer in body["data"]], body


def test_number_has_interval_unit_and_confidence(server):
    (answer,), body = ask(server, "solvation", [["CCO", "O"]], model="moltc")
    assert answer.status == "ok"
    assert answer.unit == "kcal/mol"
    assert answer.likeliest_interval[1] - answer.likeliest_interval[0] == pytest.approx(0.5)
    assert 0 < answer.confidence <= 1
    assert answer.text.startswith("The solvation Gibbs free energy of these two molecules is above")
    assert body["usage"]["completion_tokens"] > 10
    assert body["model"] == "moltc"


def test_coverage_is_a_field_of_the_request(server):
    (answer,), _ = ask(server, "solvation", [["CCO", "O"]], coverage=0.95)
    assert answer.status == "ok"
    for coverage in (0, 1, 1.5, "most"):
        body = {"task": "solvation", "pairs": [["CCO", "O"]], "coverage": coverage}
        response = server.http.post("/v1/interactions", json=body)
        assert response.status_code == 400
        assert "coverage" in response.text


def test_choice_has_label_and_confidence(server):
    (answer,), _ = ask(server, "ddi", [[ASPIRIN, WARFARIN]])
    assert answer.label in ("interaction", "no_interaction")
    assert 0 < answer.confidence <= 1
    (kind,), _ = ask(server, "ddi_type", [[ASPIRIN, WARFARIN]])
    assert 1 <= kind.label_id <= 86
    is_directed = kind.label_id in get_task("ddi_type").directed_labels
    assert (kind.subject, kind.object) == ((ASPIRIN, WARFARIN) if is_directed else (None, None))


def test_server_answers_every_task(server):
    for task in TASKS.values():
        pair = list(DRUGS.values())[: len(task.roles)]
        question = {"question": "Which is an acid?"} if task.takes_question else {}
        (answer,), _ = ask(server, task.name, [pair], **question)
        assert answer.status == ("ok" if task.grammar() else answer.status)


def test_answers_are_in_order_and_bad_molecules_fail_alone(server):
    good = list(itertools.permutations(list(DRUGS.values())[:4], 2))
    alone = {pair: ask(server, "solvation", [list(pair)])[0][0] for pair in good}
    pairs = [list(pair) for pair in good]
    bad = {3: ("C1CC", "syntax"), 7: ("CN(C)(C)C", "valence"), 11: ("C" * 600, "too_many_atoms")}
    for row, (smiles, _) in bad.items():
        pairs[row] = [smiles, "O"]
    answers, _ = ask(server, "solvation", pairs)
    for row, answer in enumerate(answers):
        if row in bad:
            assert answer.status == "bad_molecule"
            assert bad[row][1] in answer.error
            assert bad[row][0][:20] in answer.error
            assert answer.value is None
        else:
            expected = alone[tuple(pairs[row])]
            assert (answer.text, answer.value) == (expected.text, expected.value)
            assert answer.confidence == pytest.approx(expected.confidence, rel=1e-3)


def test_server_answers_molecules_without_bonds_and_large_ones(server):
    ring = "C1" + "C" * 505 + "1"
    pairs = [["O", "[Na+]"], ["O", "O"], [ring, ring], ["[H][H]", "[He]"]]
    answers, _ = ask(server, "solvation", pairs)
    assert [answer.status for answer in answers] == ["ok"] * 4


def test_pair_too_long_for_the_model_fails_alone(server):
    long_smiles = "[CH2]" * 400
    answers, _ = ask(server, "solvation", [["O", "O"], [long_smiles, long_smiles]])
    assert answers[0].status == "ok"
    assert answers[1].status == "error"
    assert "2048 tokens" in answers[1].error


def test_order_within_a_pair_matters_and_objects_equal_strings(server):
    answers, _ = ask(
        server,
        "solvation",
        [[ASPIRIN, WARFARIN], [WARFARIN, ASPIRIN], [{"smiles": ASPIRIN}, {"smiles": WARFARIN}]],
        constrained=False,
        max_tokens=16,
    )
    texts = [answer.text for answer in answers]
    assert texts[0] == texts[2] != texts[1]


def test_unconstrained_noise_is_unparsed(server):
    (answer,), _ = ask(server, "solvation", [[ASPIRIN, WARFARIN]], constrained=False, max_tokens=10)
    assert answer.status == "unparsed"
    assert answer.error
    assert answer.value is None
    assert "cut off after 10 tokens" in answer.error


def test_large_request_is_answered_completely_and_repeatably(server):
    pairs = [list(pair) for pair in itertools.product(DRUGS.values(), repeat=2)]
    answers, _ = ask(server, "ddi", pairs)
    assert len(answers) == len(DRUGS) ** 2
    assert {answer.status for answer in answers} == {"ok"}
    repeated, _ = ask(server, "ddi", pairs)
    assert [answer.label for answer in repeated] == [answer.label for answer in answers]
    confidences = [answer.confidence for answer in answers]
    assert [answer.confidence for answer in repeated] == pytest.approx(confidences, rel=1e-3)


def test_http_engine_answers_in_batches_and_reports_unknown_task(server):
    from moltc_vllm.engines.http import HttpEngine, ServerError
    from moltc_vllm.tasks.engine import Pair

    pairs = [
        Pair(row, (ASPIRIN, smiles))
        for row, smiles in enumerate(["O", "C1CC", "CCO", "", WARFARIN])
    ]
    answers = sorted(HttpEngine(server.url, batch_size=2).submit("solvation", iter(pairs)))
    assert [pair for pair, _ in answers] == pairs  # sorted, as batches may overtake each other
    assert [answer.status for _, answer in answers] == [
        "ok",
        "bad_molecule",
        "ok",
        "bad_molecule",
        "ok",
    ]
    with pytest.raises(ServerError, match=r"unknown task 'solvatoin'.*'solvation'"):
        list(HttpEngine(server.url).submit("solvatoin", pairs))


def test_disconnect_of_client_cancels_its_requests(server):
    chains = [["C" * length] for length in range(1, 300)]
    body = {"task": "caption", "pairs": chains, "constrained": False}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{server.url}/v1/interactions", json=body, timeout=1.0)
    deadline = time.monotonic() + 10
    while server.metric("vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert server.metric("vllm:num_requests_running") == 0
    assert server.metric("vllm:num_requests_waiting") == 0
