"""Decoding of our own against transformers', and the padded first token."""

import pytest
import torch
from transformers import GenerationConfig

from moltc_vllm.models import Prompt, load_model, load_tokenizer, prepare
from moltc_vllm.models.decoding import Decoder, beam_search, greedy
from moltc_vllm.tasks import Limits, get_task
from tests.molecules import drug_pairs

TASK = get_task("ddi")


@pytest.fixture(scope="module", params=["tiny", "tiny_llama"])
def checkpoint(request):
    folder = request.getfixturevalue(request.param)
    return load_model(folder), load_tokenizer(folder)


def prompts(count=5):
    pairs = [*drug_pairs(count - 1), ("O", "[Na+]")]
    return [Prompt(TASK.prompt(pair), pair, TASK.name) for pair in pairs]


def decoder_of(checkpoint, some, **options):
    model, tokenizer = checkpoint
    inputs = prepare(some, tokenizer, model.config, **options)
    with torch.inference_mode():
        return Decoder(
            model.language_model,
            model.embed(inputs.input_ids, inputs.molecules, inputs.projector),
            inputs.attention_mask,
            forbidden=model.config.molecule_token_id,
        )


@torch.inference_mode()
def test_greedy_is_transformers(checkpoint):
    model, tokenizer = checkpoint
    inputs = prepare(prompts(), tokenizer, model.config)
    common = int(model.generate(**inputs._asdict(), max_new_tokens=9).token_ids[0][6])
    for stop, least in ((None, 0), (common, 0), (common, 8)):
        out = model.language_model.generate(
            inputs_embeds=model.embed(inputs.input_ids, inputs.molecules, inputs.projector),
            attention_mask=inputs.attention_mask,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=16,
                min_new_tokens=least or None,
                eos_token_id=stop,
                pad_token_id=tokenizer.pad_token_id,
                suppress_tokens=[model.config.molecule_token_id],
            ),
        )
        got = greedy(decoder_of(checkpoint, prompts()), Limits(16, least), stop)
        lengths = set()
        for ids, logprobs, expected in zip(got.token_ids, got.logprobs, out.tolist(), strict=True):
            end = expected.index(stop) if stop in expected else len(expected)
            assert ids == expected[:end]
            assert len(ids) == len(logprobs) >= least
            lengths.add(len(ids))
        assert stop is None or least or len(lengths) > 1


@torch.inference_mode()
def test_one_beam_is_greedy_and_more_find_better(checkpoint):
    better = 0
    for prompt in prompts():
        ids = greedy(decoder_of(checkpoint, [prompt]), Limits(8), None)
        ((one,),) = beam_search(decoder_of(checkpoint, [prompt]), 1, Limits(8), None)
        assert list(one.tokens) == ids.token_ids[0]
        assert one.logprobs == pytest.approx(ids.logprobs[0], abs=1e-4)
        (many,) = beam_search(decoder_of(checkpoint, [prompt]), 4, Limits(8), None)
        assert many[0].score >= one.score - 1e-5
        better += many[0].score > one.score + 1e-5
    assert better


@torch.inference_mode()
@pytest.mark.parametrize("pad_query", [False, True])
def test_a_row_does_not_notice_its_batch(checkpoint, pad_query):
    together = beam_search(
        decoder_of(checkpoint, prompts(), pad_query=pad_query), 3, Limits(10, 2, 1), 7
    )
    for prompt, found in zip(prompts(), together, strict=True):
        (alone,) = beam_search(
            decoder_of(checkpoint, [prompt], pad_query=pad_query), 3, Limits(10, 2, 1), 7
        )
        assert [one.tokens for one in alone] == [one.tokens for one in found]


@torch.inference_mode()
def test_a_scores_tokens_add_up(checkpoint):
    model, tokenizer = checkpoint
    (prompt, *_) = prompts()
    (found,) = beam_search(decoder_of(checkpoint, [prompt]), 3, Limits(6), None)
    inputs = prepare([prompt], tokenizer, model.config)
    for one in found:
        ids = torch.cat([inputs.input_ids, torch.tensor([one.tokens])], 1)
        logits = model(ids, torch.ones_like(ids), inputs.molecules, inputs.projector).logits[
            0, -len(one.tokens) - 1 : -1
        ]
        of_tokens = logits.log_softmax(-1).gather(1, torch.tensor(one.tokens)[:, None])[:, 0]
        assert one.logprobs == pytest.approx(of_tokens.tolist(), abs=1e-3)
        assert one.score == pytest.approx(float(of_tokens.sum()) / 6, abs=1e-3)


@torch.inference_mode()
def test_a_pad_asks_differently_and_their_number_does_not_matter(tiny):
    checkpoint = load_model(tiny), load_tokenizer(tiny)
    some = prompts()
    plain = greedy(decoder_of(checkpoint, some), Limits(8), None)
    padded = greedy(decoder_of(checkpoint, some, pad_query=True), Limits(8), None)
    assert all(a != b for a, b in zip(plain.token_ids, padded.token_ids, strict=True))
    for row, prompt in enumerate(some):
        alone = greedy(decoder_of(checkpoint, [prompt], pad_query=True), Limits(8), None)
        assert alone.token_ids[0] == padded.token_ids[row]
        difference = (alone.first_logprobs[0] - padded.first_logprobs[row]).abs()
        assert difference[torch.isfinite(difference)].max() < 1e-4
