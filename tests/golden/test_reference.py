"""Parity with the published code; ``python -m tests.golden.reference --report`` prints it."""

import pytest

from moltc_vllm.models.torch_engine import TorchEngine
from tests.golden import reference
from tests.golden.fixture import Fixture
from tests.paths import reference_dir


@pytest.fixture(scope="module")
def fixture():
    return Fixture(reference_dir())


@pytest.fixture(scope="module")
def engine(published):
    return TorchEngine(published, batch_size=1)


@pytest.fixture(scope="module")
def vllm(published):
    return reference.VllmRunner(published)


def assert_all_equal(comparison, total):
    assert (comparison.equal, comparison.total) == (total, total), str(comparison)


def test_prompts_and_molecule_tokens_equal_published(engine, fixture):
    texts, ids = reference.compare_prompts(engine, fixture.records)
    assert_all_equal(texts, 40)
    assert_all_equal(ids, 40)
    worst = reference.compare_molecules(engine, fixture.records)
    print(f"\nlargest differences: {worst}")
    assert max(worst.values()) < reference.TOKENS_TOLERANCE


def test_torch_engine_equals_published(engine, fixture):
    step = reference.torch_first_step(engine, fixture.records)
    assert_all_equal(step.top_equal, 40)
    assert step.largest_difference < reference.LOGPROBS_TOLERANCE
    for result in ("greedy", "beam5"):
        assert_all_equal(reference.torch_texts(engine, fixture.records, result), 40)


@pytest.mark.parametrize("result", ["greedy", "beam5"])
def test_torch_engine_with_pad_query_equals_published_batches(engine, fixture, result):
    padded = [record for record in fixture.records if record.raw["batch4"]["pad"]]
    assert len(padded) == 26
    assert_all_equal(reference.torch_padded(engine, fixture.records, result), 40)
    if result == "greedy":  # every padded text differs from the unpadded one
        unpadded = reference.torch_texts(engine, padded, result)
        assert all(
            record.raw["batch4"][result]["text"] != record.raw[result]["text"] for record in padded
        )
        assert unpadded.equal == 26


@pytest.mark.parametrize("name", ["lora_default", "no_lora", "opt_with_bias"])
def test_torch_engine_equals_published_variants(fixture, name, tmp_path):
    rows = fixture.variants()[name]
    engine = TorchEngine(reference.convert_variant(fixture, name, tmp_path / name), batch_size=1)
    for result in ("greedy", "beam5"):
        assert_all_equal(reference.torch_texts(engine, rows, result), 10)


def test_vllm_stops_at_line_break_only(vllm):
    renderer = vllm.engine.engine.renderer
    (line_break,) = renderer.get_tokenizer().encode("\n")
    assert renderer.get_eos_token_id() == line_break  # not </s>, which occurs in prompts


def test_vllm_keeps_placeholder_logit_of_known_row(vllm, fixture):
    from vllm import SamplingParams

    record = fixture.records[0]
    placeholder = vllm.engine.request_builder.config.molecule_token_id
    vllm.engine.request_builder.style = record.style
    prompt = vllm.engine.request_builder.build_prompt(
        record.task, record.pair.molecules, record.question
    )
    (inputs,) = vllm.engine.engine.renderer.render_cmpl([prompt])
    params = SamplingParams(max_tokens=1, logprobs=1, logprob_token_ids=[placeholder])
    vllm.engine.engine.add_request("placeholder", inputs, params)
    (output,) = vllm.run_to_end()
    logprob = output.outputs[0].logprobs[0][placeholder].logprob
    assert logprob == pytest.approx(float(record.first_logprobs[placeholder]), abs=2e-3)


def test_vllm_engine_equals_published(vllm, fixture):
    step = vllm.first_step(fixture.records)
    assert_all_equal(step.top_equal, 40)
    assert step.largest_difference < reference.LOGPROBS_TOLERANCE
    assert_all_equal(vllm.texts(fixture.records, "greedy"), 40)
    beams = vllm.texts(fixture.records, "beam5")
    print(f"\nbeam5: {beams}")
    assert beams.equal >= 38
