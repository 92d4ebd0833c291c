"""Checkpoints with canonical order give both orders of a pair the same answer, in every engine."""

import itertools
import json
import random
import shutil

import pytest

from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.engine.request_builder import GenerationSettings
from moltc_vllm.plugin.engine.vllm_engine import VllmEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.molecules import DRUGS

PAIRS = [
    *random.Random(3).sample(list(itertools.combinations(DRUGS.values(), 2)), 8),
    ("O", "CCO"),
    ("OCC", "CCO"),  # one molecule, written in two ways
    ("CCO", "CCO"),
]
COUNT = len(PAIRS)
# Every pair, then every pair in the other order.
BOTH_ORDERS = [
    Pair(row, molecules) for row, molecules in enumerate((*PAIRS, *(pair[::-1] for pair in PAIRS)))
]


@pytest.fixture(scope="module")
def canonical(tiny_roles, tmp_path_factory):
    """Copy of a checkpoint whose roles have different projectors, with canonical order."""
    folder = shutil.copytree(tiny_roles, tmp_path_factory.mktemp("canonical") / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    assert config["symmetric_order"] == "given"
    (folder / "config.json").write_text(json.dumps({**config, "symmetric_order": "canonical"}))
    return folder


@pytest.fixture(scope="module")
def vllm(canonical):
    return VllmEngine(canonical)


def answers(engine, name, pairs=BOTH_ORDERS):
    by_row = {pair.row: answer for pair, answer in engine.submit(name, pairs)}
    return [by_row[pair.row] for pair in pairs]


def assert_equal_in_both_orders(found):
    assert len(found) == 2 * COUNT
    # Notes begin with the role of their molecule, which stays that of the user.
    separate = {"confidence", "notes"}
    for answer, other in zip(found[:COUNT], found[COUNT:], strict=True):
        assert answer.confidence == pytest.approx(other.confidence, rel=1e-5)
        assert answer.model_dump(exclude=separate) == other.model_dump(exclude=separate)
        assert len(answer.notes) == len(other.notes)


@pytest.mark.parametrize("name", ["ddi", "ddi_biosnap"])
def test_both_orders_get_one_answer(canonical, vllm, name):
    reference = answers(TorchEngine(canonical), name)
    assert {answer.status for answer in reference} == {"ok"}
    assert_equal_in_both_orders(reference)
    vllm.request_builder.settings = GenerationSettings()
    generated = answers(vllm, name)
    assert_equal_in_both_orders(generated)
    assert [answer.label for answer in generated] == [answer.label for answer in reference]
    vllm.request_builder.settings = GenerationSettings(score=True)
    assert_equal_in_both_orders(answers(vllm, name))


def test_given_order_changes_the_answer(tiny_roles):
    found = answers(TorchEngine(tiny_roles), "ddi")
    pairs = zip(found[: COUNT - 1], found[COUNT:], strict=False)  # without the pair (A, A)
    assert all(answer.confidence != other.confidence for answer, other in pairs)


def test_directed_task_depends_on_the_order(canonical):
    found = answers(TorchEngine(canonical), "ddi_type")
    assert any(
        answer.confidence != pytest.approx(other.confidence, rel=1e-3)
        for answer, other in zip(found[:COUNT], found[COUNT:], strict=True)
    )


def test_bad_molecule_is_reported_at_its_position(canonical, vllm):
    vllm.request_builder.settings = GenerationSettings()
    pairs = [Pair(0, ("CCO", "C1CC")), Pair(1, ("C1CC", "CCO"))]
    for engine in (TorchEngine(canonical), vllm):
        for answer in answers(engine, "ddi", pairs):
            assert answer.status == "bad_molecule"
            assert "C1CC" in answer.error


def test_both_orders_are_submitted_once(canonical, vllm):
    vllm.request_builder.settings = GenerationSettings()
    assert not TorchEngine(canonical).ignores_order("ddi_type")
    assert TorchEngine(canonical).ignores_order("ddi")
    before = vllm.counters()["prompt_tokens"]
    alone = answers(vllm, "ddi", BOTH_ORDERS[:COUNT])
    once = vllm.counters()["prompt_tokens"] - before
    averaged = answers(SymmetrizedEngine(vllm), "ddi", BOTH_ORDERS[:COUNT])
    assert vllm.counters()["prompt_tokens"] == before + 2 * once
    assert averaged == alone


def chat(*parts):
    content = [
        {"type": "text", "text": part} if " " in part else {"type": "molecule", "molecule": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


def tagged(*smiles):
    return " ".join(f"[START_I_SMILES]{text}[END_I_SMILES]" for text in smiles)


def test_server_prompts_of_both_orders_are_equal(vllm):
    from vllm.renderers.params import ChatParams

    renderer = vllm.engine.renderer
    question = get_task("ddi").question

    def rendered(prompt):
        (inputs,) = renderer.render_cmpl([prompt])
        return inputs["prompt_token_ids"], inputs["mm_hashes"]

    def rendered_chat(messages):
        _, prompt = renderer.render_messages(messages, ChatParams())
        return rendered(prompt)

    expected = None
    for pair in (("O", "CCO"), ("CCO", "O")):
        by_route = [
            rendered_chat(chat(*pair, question)),
            rendered_chat(chat(question, *pair)),
            rendered_chat([{"role": "user", "content": f"{tagged(*pair)} {question}"}]),
            rendered({"prompt": f"{tagged(*pair)} {question}\n"}),
        ]
        expected = expected or by_route
        assert by_route == expected
        other_question = get_task("ddi_type").question
        _, hashes = rendered({"prompt": f"{tagged(*pair)} {other_question}\n"})
        assert hashes["molecule"] == [
            rendered({"prompt": f"{tagged(smiles, smiles)} {other_question}\n"})[1]["molecule"][
                role
            ]
            for role, smiles in enumerate(pair)
        ]
