"""Asking only what is decided: the answers of plain torch held to the same tree, and those of whole
texts where the tokenizer has a token for each label and interval."""

import math

import pytest
import torch

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.data import read_dataset
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.models.answer_trie import answer_trie
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt, prepare
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.engine.request_builder import Settings
from moltc_vllm.plugin.engine.vllm_engine import VllmEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.paths import data_dir

TASKS = {
    "ddi": "chchminer",
    "ddi_type": "drugbank86",
    "solvation": "combisolv_exp",
    "absorption": "deep4chem_absorption",
}


def pairs_of(task):
    source = DATASETS[TASKS[task]]
    rows = read_dataset(data_dir() / source.file, get_task(task), split="test", limit=20).rows
    return [Pair(row.number, row.molecules) for row in rows]


def answers(engine, task):
    bad = Pair(0, ("C1CC", "O"))
    return {pair.row: answer for pair, answer in engine.submit(task, [*pairs_of(task), bad])}


class Held:
    """Keeps tokens to a tree of answers."""

    def __init__(self, tree):
        self.tree = tree

    def __call__(self, chosen, logits):
        held = torch.full_like(logits, float("-inf"))
        for row, tokens in enumerate(chosen.tolist()):
            place = self.tree
            for token in tokens:
                place = place.children.get(token, place)
            ways = list(place.children) or [0]
            held[row, ways] = logits[row, ways]
        return held


@pytest.fixture(scope="module", params=["words", "phrases"])
def asked(request, tiny):
    """A checkpoint, its answers as whole texts, and what is decided in them."""
    folder = tiny if request.param == "words" else shipped_checkpoint()
    engine = VllmEngine(folder)
    whole = {task: answers(engine, task) for task in TASKS}
    engine.request_builder.settings = Settings(score=True)
    return folder, whole, {task: answers(engine, task) for task in TASKS}


@pytest.mark.parametrize("name", ["ddi", "ddi_type", "solvation"])
def test_answers_are_the_likeliest_ways_through_the_tree(asked, name):
    folder, _, scored = asked
    reference, task = TorchEngine(folder), get_task(name)
    if interval_vocabulary(task, reference.tokenizer) is not None:
        return  # an interval, and no text
    held = Held(answer_trie(task, reference.tokenizer))
    for pair in pairs_of(name):
        text, order = reference.style.compose(task, pair.molecules)
        prompt = Prompt(text, [pair.molecules[place] for place in order], name)
        inputs = prepare([prompt], reference.tokenizer, reference.config)._asdict()
        eos = reference.tokenizer.eos_token_id
        out = reference.model.generate(
            **inputs, max_new_tokens=99, logits_processor=[held], eos_token_id=eos
        )
        answer = scored[name][pair.row]
        assert answer.text == reference.text(out.token_ids[0])
        if folder == shipped_checkpoint():  # of random weights the likeliest tokens are others
            assert answer.confidence == pytest.approx(math.exp(sum(out.logprobs[0])), abs=2e-3)


@pytest.mark.parametrize("name", list(TASKS))
def test_the_same_as_whole_answers(asked, name):
    folder, whole, scored = asked
    tree = answer_trie(get_task(name), TorchEngine(folder).tokenizer)
    assert scored[name].keys() == whole[name].keys()
    assert scored[name][0] == whole[name][0]
    assert whole[name][0].status == "bad_molecule"
    for row, answer in scored[name].items():
        expected = whole[name][row]
        assert answer.status == expected.status
        if tree is None:  # asked as always
            assert answer.text == expected.text
        elif answer.status == "ok" and folder == shipped_checkpoint():
            assert answer.label == expected.label
            assert answer.interval == expected.interval
            assert answer.unit == expected.unit
            assert answer.confidence == pytest.approx(expected.confidence, abs=0.01)
            if answer.value is not None:
                assert answer.value == pytest.approx(expected.value, rel=0.005, abs=0.02)
                assert answer.stated is answer.text is None


def test_what_is_not_held_to_a_grammar_is_generated(tiny):
    engine = VllmEngine(tiny, constrained=False, score=True)
    (pair,) = pairs_of("solvation")[:1]
    (_, scored), *_ = engine.submit("solvation", [pair])
    engine.request_builder.settings = Settings(constrained=False)
    (_, generated), *_ = engine.submit("solvation", [pair])
    assert scored == generated


def test_scores_need_an_engine_that_tells_them(tiny):
    with pytest.raises(ValueError, match="--logprobs-mode processed_logprobs"):
        VllmEngine(tiny, score=True, logprobs_mode="raw_logprobs")


def test_probabilities_that_are_no_numbers_are_an_error_of_their_pair():
    from moltc_vllm.models.checkpoint import load_config, load_tokenizer
    from moltc_vllm.plugin.engine.decoding_strategies import GenerationResult
    from moltc_vllm.plugin.engine.request_builder import PairRequestBuilder

    folder, task = shipped_checkpoint(), get_task("solvation")
    tokenizer = load_tokenizer(folder)
    request_builder = PairRequestBuilder(load_config(folder), tokenizer, Settings(score=True))
    (token, *_) = interval_vocabulary(task, tokenizer).tokens.tolist()
    likely = [(token, math.nan)]
    answer = request_builder.answer(
        task, GenerationResult([token], [math.nan], False, likely, scored=True)
    )
    assert answer.status == "error"
    assert answer.error == "the model's probabilities are not numbers"
