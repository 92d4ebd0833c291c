"""`PromptComposer` sorts the molecules of symmetric tasks if the checkpoint says so."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.chem import canonical_key
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.prompt_composer import PromptComposer, ignores_order
from moltc_vllm.tasks import STYLES, TASKS, get_task
from tests.molecules import DRUGS

WRITTEN = (*DRUGS.values(), "OCC", "CCO", "C(O)C", "O", "[OH2]")
SYMMETRIC = [name for name, task in TASKS.items() if task.symmetric]
QUESTION = get_task("ddi").question


@cache
def composer(style="moltc", order="canonical"):
    return PromptComposer(MoltcConfig(prompt_style=style, symmetric_order=order))


def prompt(style, task, pair, order="canonical"):
    """Return the text of a prompt and the SMILES at its placeholders."""
    text, positions = composer(style, order).compose(get_task(task), pair)
    return text, [pair[index] for index in positions]


@settings(deadline=None)
@given(st.tuples(st.sampled_from(WRITTEN), st.sampled_from(WRITTEN)), st.sampled_from(STYLES))
def test_both_orders_of_symmetric_tasks_give_one_prompt(pair, style):
    names = SYMMETRIC if not style.startswith("moltc-2024") else ["ddi", "ddi_side_effects"]
    for name in names:
        text, molecules = prompt(style, name, pair)
        assert (text, molecules) == prompt(style, name, pair[::-1])
        assert sorted(molecules) == sorted(pair)


@settings(deadline=None)
@given(st.tuples(st.sampled_from(WRITTEN), st.sampled_from(WRITTEN)))
def test_molecules_are_sorted_by_key(pair):
    keys = [canonical_key(smiles) for smiles in prompt("moltc-graph", "ddi", pair)[1]]
    assert keys == sorted(keys)


def test_prompt_has_texts_of_the_user():
    text, molecules = prompt("moltc", "ddi", ("OCC", "N"))
    assert molecules == ["OCC", "N"]
    assert text.index("OCC") < text.index("[START_I_SMILES]N[")
    assert prompt("moltc", "ddi", ("N", "OCC")) == (text, molecules)


@pytest.mark.parametrize("name", ["ddi_type", "solvation", "pair_properties"])
def test_other_tasks_keep_the_order(name):
    for pair in (("O", "CCO"), ("CCO", "O")):
        assert prompt("moltc-graph", name, pair)[1] == list(pair)


def test_given_order_is_kept():
    for pair in (("O", "CCO"), ("CCO", "O")):
        assert prompt("moltc-graph", "ddi", pair, order="given")[1] == list(pair)
        assert prompt("moltc", "ddi", pair, "given") != prompt("moltc", "ddi", pair[::-1], "given")


@pytest.mark.parametrize("invalid", ["C1CC", "C" * 600, ""])
def test_pair_with_invalid_molecule_keeps_the_order(invalid):
    for pair in ((invalid, "CCO"), ("CCO", invalid)):
        assert composer().order(get_task("ddi"), pair) == (0, 1)


def test_question_in_a_text_determines_the_order():
    for smiles, expected in ((["O", "CCO"], (1, 0)), (["CCO", "O"], (0, 1))):
        assert composer().order_by_question(smiles, f"... {QUESTION}") == expected
        assert composer().order_by_question(smiles, "Which one is an acid?") == (0, 1)
        assert composer(order="given").order_by_question(smiles, QUESTION) == (0, 1)
    assert composer().order_by_question(["O", "CCO", "C"], QUESTION) == (0, 1, 2)


def test_ignores_order_needs_both_task_and_checkpoint():
    canonical, given_order = MoltcConfig(symmetric_order="canonical"), MoltcConfig()
    assert ignores_order(canonical, get_task("ddi"))
    assert not ignores_order(canonical, get_task("ddi_type"))
    assert not ignores_order(given_order, get_task("ddi"))


def test_config_rejects_unknown_order():
    with pytest.raises(ValueError, match="symmetric_order 'sorted' is not one of given, canonical"):
        MoltcConfig(symmetric_order="sorted")
