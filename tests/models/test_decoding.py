"""Decoding equals transformers' where both apply, and supports a padded first token."""

import pytest
import torch
from transformers import GenerationConfig

from moltc_vllm.models import Prompt, load_model, load_tokenizer, prepare_inputs
from moltc_vllm.models.decoding import IncrementalDecoder, beam_search, greedy_search
from moltc_vllm.tasks import GenerationLimits, get_task
from tests.molecules import drug_pairs

TASK = get_task("ddi")


@pytest.fixture(scope="module", params=["tiny", "tiny_llama"])
def checkpoint(request):
    folder = request.getfixturevalue(request.param)
    return load_model(folder), load_tokenizer(folder)


def prompts(count=5):
    pairs = [*drug_pairs(count - 1), ("O", "[Na+]")]
    return [Prompt(TASK.prompt(pair), pair, TASK.name) for pair in pairs]


def decoder_of(checkpoint, batch, **options):
    model, tokenizer = checkpoint
    inputs = prepare_inputs(batch, tokenizer, model.config, **options)
    with torch.inference_mode():
        return IncrementalDecoder(
            model.language_model,
            model.embed(inputs.input_ids, inputs.molecules, inputs.projector),
            inputs.attention_mask,
            suppressed_token=model.config.molecule_token_id,
        )


@torch.inference_mode()
def test_greedy_search_equals_transformers(checkpoint):
    model, tokenizer = checkpoint
    inputs = prepare_inputs(prompts(), tokenizer, model.config)
    frequent = int(model.generate(**inputs._asdict(), max_new_tokens=9).token_ids[0][6])
    for stop, minimum in ((None, 0), (frequent, 0), (frequent, 8)):
        out = model.language_model.generate(
            inputs_embeds=model.embed(inputs.input_ids, inputs.molecules, inputs.projector),
            attention_mask=inputs.attention_mask,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=16,
                min_new_tokens=minimum or None,
                eos_token_id=stop,
                pad_token_id=tokenizer.pad_token_id,
                suppress_tokens=[model.config.molecule_token_id],
            ),
        )
        got = greedy_search(decoder_of(checkpoint, prompts()), GenerationLimits(16, minimum), stop)
        lengths = set()
        for ids, logprobs, expected in zip(got.token_ids, got.logprobs, out.tolist(), strict=True):
            end = expected.index(stop) if stop in expected else len(expected)
            assert ids == expected[:end]
            assert len(ids) == len(logprobs) >= minimum
            lengths.add(len(ids))
        assert stop is None or minimum or len(lengths) > 1


@torch.inference_mode()
def test_one_beam_is_greedy_and_more_beams_improve_scores(checkpoint):
    improved = 0
    for prompt in prompts():
        greedy = greedy_search(decoder_of(checkpoint, [prompt]), GenerationLimits(8), None)
        ((single,),) = beam_search(decoder_of(checkpoint, [prompt]), 1, GenerationLimits(8), None)
        assert list(single.tokens) == greedy.token_ids[0]
        assert single.logprobs == pytest.approx(greedy.logprobs[0], abs=1e-4)
        (many,) = beam_search(decoder_of(checkpoint, [prompt]), 4, GenerationLimits(8), None)
        assert many[0].score >= single.score - 1e-5
        improved += many[0].score > single.score + 1e-5
    assert improved


@torch.inference_mode()
@pytest.mark.parametrize("pad_query", [False, True])
def test_beam_search_of_row_does_not_depend_on_batch(checkpoint, pad_query):
    together = beam_search(
        decoder_of(checkpoint, prompts(), pad_query=pad_query), 3, GenerationLimits(10, 2, 1), 7
    )
    for prompt, batched in zip(prompts(), together, strict=True):
        (alone,) = beam_search(
            decoder_of(checkpoint, [prompt], pad_query=pad_query), 3, GenerationLimits(10, 2, 1), 7
        )
        assert [answer.tokens for answer in alone] == [answer.tokens for answer in batched]


@torch.inference_mode()
def test_beam_score_is_mean_of_token_logprobs(checkpoint):
    model, tokenizer = checkpoint
    (prompt, *_) = prompts()
    (hypotheses,) = beam_search(decoder_of(checkpoint, [prompt]), 3, GenerationLimits(6), None)
    inputs = prepare_inputs([prompt], tokenizer, model.config)
    for tokens, logprobs, score, _ in hypotheses:
        ids = torch.cat([inputs.input_ids, torch.tensor([tokens])], 1)
        logits = model(ids, torch.ones_like(ids), inputs.molecules, inputs.projector).logits[
            0, -len(tokens) - 1 : -1
        ]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert logprobs == pytest.approx(expected.tolist(), abs=1e-3)
        assert score == pytest.approx(float(expected.sum()) / 6, abs=1e-3)


@torch.inference_mode()
def test_pad_query_changes_answer_but_number_of_pads_does_not(tiny):
    checkpoint = load_model(tiny), load_tokenizer(tiny)
    batch = prompts()
    limits = GenerationLimits(8)
    plain = greedy_search(decoder_of(checkpoint, batch), limits, None)
    padded = greedy_search(decoder_of(checkpoint, batch, pad_query=True), limits, None)
    assert all(a != b for a, b in zip(plain.token_ids, padded.token_ids, strict=True))
    for row, prompt in enumerate(batch):
        alone = greedy_search(decoder_of(checkpoint, [prompt], pad_query=True), limits, None)
        assert alone.token_ids[0] == padded.token_ids[row]
        difference = (alone.first_logprobs[0] - padded.first_logprobs[row]).abs()
        assert difference[torch.isfinite(difference)].max() < 1e-4
