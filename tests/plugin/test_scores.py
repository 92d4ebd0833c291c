"""Scored answers equal those of plain torch on the same answer trie.

Where the tokenizer has a token for each label and interval they also equal generated answers.
"""

import math

import pytest
import torch

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.data import read_dataset
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.models.answer_trie import answer_trie
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt, prepare_inputs
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.engine.request_builder import GenerationSettings
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
    spec = DATASETS[TASKS[task]]
    rows = read_dataset(data_dir() / spec.file, get_task(task), split="test", limit=20).rows
    return [Pair(row.number, row.molecules) for row in rows]


def answers(engine, task):
    invalid = Pair(0, ("C1CC", "O"))
    return {pair.row: answer for pair, answer in engine.submit(task, [*pairs_of(task), invalid])}


class TrieLogitsProcessor:
    """Logits processor that masks all tokens outside an answer trie."""

    def __init__(self, trie):
        self.trie = trie

    def __call__(self, generated, logits):
        masked = torch.full_like(logits, float("-inf"))
        for row, tokens in enumerate(generated.tolist()):
            node = self.trie
            for token in tokens:
                node = node.children.get(token, node)
            allowed = list(node.children) or [0]
            masked[row, allowed] = logits[row, allowed]
        return masked


@pytest.fixture(scope="module", params=["words", "phrases"])
def scored_and_generated(request, tiny):
    """Return a checkpoint, its generated answers and its scored answers."""
    folder = tiny if request.param == "words" else shipped_checkpoint()
    engine = VllmEngine(folder)
    generated = {task: answers(engine, task) for task in TASKS}
    engine.request_builder.settings = GenerationSettings(score=True)
    return folder, generated, {task: answers(engine, task) for task in TASKS}


@pytest.mark.parametrize("name", ["ddi", "ddi_type", "solvation"])
def test_scored_answer_is_most_probable_path_of_trie(scored_and_generated, name):
    folder, _, scored = scored_and_generated
    reference, task = TorchEngine(folder), get_task(name)
    if interval_vocabulary(task, reference.tokenizer) is not None:
        return  # the answer is an interval without text
    mask = TrieLogitsProcessor(answer_trie(task, reference.tokenizer))
    for pair in pairs_of(name):
        text, order = reference.style.compose(task, pair.molecules)
        prompt = Prompt(text, [pair.molecules[index] for index in order], name)
        inputs = prepare_inputs([prompt], reference.tokenizer, reference.config)._asdict()
        eos = reference.tokenizer.eos_token_id
        output = reference.model.generate(
            **inputs, max_new_tokens=99, logits_processor=[mask], eos_token_id=eos
        )
        answer = scored[name][pair.row]
        assert answer.text == reference.text(output.token_ids[0])
        if folder == shipped_checkpoint():  # random weights prefer tokens outside the trie
            assert answer.confidence == pytest.approx(math.exp(sum(output.logprobs[0])), abs=2e-3)


@pytest.mark.parametrize("name", list(TASKS))
def test_scored_answers_equal_generated_answers(scored_and_generated, name):
    folder, generated, scored = scored_and_generated
    trie = answer_trie(get_task(name), TorchEngine(folder).tokenizer)
    assert scored[name].keys() == generated[name].keys()
    assert scored[name][0] == generated[name][0]
    assert generated[name][0].status == "bad_molecule"
    for row, answer in scored[name].items():
        expected = generated[name][row]
        assert answer.status == expected.status
        if trie is None:  # generated in both cases
            assert answer.text == expected.text
        elif answer.status == "ok" and folder == shipped_checkpoint():
            assert answer.label == expected.label
            assert answer.likeliest_interval == expected.likeliest_interval
            assert answer.unit == expected.unit
            assert answer.confidence == pytest.approx(expected.confidence, abs=0.01)
            if answer.value is not None:
                assert answer.value == pytest.approx(expected.value, rel=0.005, abs=0.02)
                assert answer.generated_value is answer.text is None


def test_answers_without_grammar_are_generated(tiny):
    engine = VllmEngine(tiny, constrained=False, score=True)
    (pair,) = pairs_of("solvation")[:1]
    (_, scored), *_ = engine.submit("solvation", [pair])
    engine.request_builder.settings = GenerationSettings(constrained=False)
    (_, generated), *_ = engine.submit("solvation", [pair])
    assert scored == generated


def test_scores_need_processed_logprobs(tiny):
    with pytest.raises(ValueError, match="--logprobs-mode processed_logprobs"):
        VllmEngine(tiny, score=True, logprobs_mode="raw_logprobs")


def test_nan_probabilities_are_an_error_of_their_pair():
    from moltc_vllm.models.checkpoint import load_config, load_tokenizer
    from moltc_vllm.models.token_candidate import TokenCandidates
    from moltc_vllm.plugin.engine.decoding_strategies import GenerationResult
    from moltc_vllm.plugin.engine.request_builder import PairRequestBuilder

    folder, task = shipped_checkpoint(), get_task("solvation")
    tokenizer = load_tokenizer(folder)
    request_builder = PairRequestBuilder(
        load_config(folder), tokenizer, GenerationSettings(score=True)
    )
    token = interval_vocabulary(task, tokenizer).token_ids.tolist()[0]
    candidates = TokenCandidates([token], [math.nan])
    result = GenerationResult([token], [math.nan], False, candidates, scored=True)
    answer = request_builder.parse_result(task, result)
    assert answer.status == "error"
    assert answer.error == "the model's probabilities are not numbers"
