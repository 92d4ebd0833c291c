"""Tokens and probabilities of vLLM equal those of plain torch."""

import math

import pytest
import torch
from vllm import SamplingParams

from moltc_vllm.models import Prompt, load_model, load_tokenizer, prepare_inputs
from moltc_vllm.tasks import get_task
from tests.molecules import drug_pairs

PAIRS = 40
BATCH_SIZE = 8
NEW_TOKENS = 24
TOLERANCE = 2e-3


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles", "tiny_extended"])
def test_vllm_generates_tokens_and_logprobs_of_torch(name, request, offline, record_property):
    folder = request.getfixturevalue(name)
    task = get_task("ddi")
    pairs = drug_pairs(PAIRS)
    prompts = [task.prompt(pair) for pair in pairs]
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    expected_ids, expected_first = [], []
    for start in range(0, PAIRS, BATCH_SIZE):
        rows = range(start, min(start + BATCH_SIZE, PAIRS))
        batch = [Prompt(prompts[row], pairs[row], task.name) for row in rows]
        output = model.generate(
            **prepare_inputs(batch, tokenizer, model.config)._asdict(),
            max_new_tokens=NEW_TOKENS,
            eos_token_id=-1,
        )
        expected_ids += output.token_ids
        expected_first += list(output.first_logprobs)

    llm = offline(folder, max_logprobs=-1)
    requests = [
        {
            "prompt": prompt,
            "multi_modal_data": {
                "molecule": [{"smiles": smiles, "task": task.name} for smiles in pair]
            },
        }
        for prompt, pair in zip(prompts, pairs, strict=True)
    ]
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    first = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, logprobs=-1)
    outputs = llm.generate(requests, greedy, use_tqdm=False)
    first_outputs = llm.generate(requests, first, use_tqdm=False)
    largest = 0.0
    for output, ids in zip(outputs, expected_ids, strict=True):
        assert list(output.outputs[0].token_ids) == ids
    for output, expected in zip(first_outputs, expected_first, strict=True):
        actual = output.outputs[0].logprobs[0]
        assert len(actual) >= len(expected) - 1
        for token, logprob in actual.items():
            if token == model.config.molecule_token_id:  # masked by both
                assert expected[token] == -math.inf
            else:
                largest = max(largest, abs(logprob.logprob - float(expected[token])))
    print(f"\n{name}: {PAIRS} of {PAIRS} pairs equal, largest difference {largest:.1e}")
    record_property("largest_logprob_difference", largest)
    assert largest < TOLERANCE
    # The comparison is meaningful only if the random weights give different answers.
    assert len({tuple(ids) for ids in expected_ids}) > PAIRS // 2
    assert torch.stack(expected_first).exp().amax(1).mean() > 2 / len(tokenizer)
