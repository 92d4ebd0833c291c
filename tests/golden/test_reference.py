"""The golden report, part by part; ``python -m tests.golden.reference --report`` prints it all."""

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
    return TorchEngine(published, batch=1)


@pytest.fixture(scope="module")
def vllm(published):
    return reference.Vllm(published)


def everything(comparison, of):
    assert (comparison.equal, comparison.of) == (of, of), str(comparison)


def test_prompts_and_molecule_tokens(engine, fixture):
    texts, ids = reference.compare_prompts(engine, fixture.records)
    everything(texts, 40)
    everything(ids, 40)
    worst = reference.compare_molecules(engine, fixture.records)
    print(f"\nlargest differences: {worst}")
    assert max(worst.values()) < reference.TOKENS_WITHIN


def test_plain_torch(engine, fixture):
    step = reference.torch_first_step(engine, fixture.records)
    everything(step.top_equal, 40)
    assert step.largest < reference.LOGPROBS_WITHIN
    for result in ("greedy", "beam5"):
        everything(reference.torch_texts(engine, fixture.records, result), 40)


@pytest.mark.parametrize("result", ["greedy", "beam5"])
def test_padded_batches_in_plain_torch(engine, fixture, result):
    padded = [record for record in fixture.records if record.raw["batch4"]["pad"]]
    assert len(padded) == 26
    everything(reference.torch_padded(engine, fixture.records, result), 40)
    if result == "greedy":  # and without the pad none of them would be equal
        unpadded = reference.torch_texts(engine, padded, result)
        texts = {r.id: r.raw["batch4"][result]["text"] for r in padded}
        assert all(texts[r.id] != r.raw[result]["text"] for r in padded)
        assert unpadded.equal == 26


@pytest.mark.parametrize("name", ["lora_default", "no_lora", "opt_with_bias"])
def test_other_language_models_and_adapters(fixture, name, tmp_path):
    rows = fixture.variants()[name]
    engine = TorchEngine(reference.convert_variant(fixture, name, tmp_path / name), batch=1)
    for result in ("greedy", "beam5"):
        everything(reference.torch_texts(engine, rows, result), 10)


def test_only_a_line_end_ends_an_answer(vllm):
    renderer = vllm.engine.engine.renderer
    (line_end,) = renderer.get_tokenizer().encode("\n")
    assert renderer.get_eos_token_id() == line_end  # and not </s>, which prompts are full of


def test_the_placeholders_logit_is_the_published_one_where_its_row_is_known(vllm, fixture):
    from vllm import SamplingParams

    record = fixture.records[0]
    placeholder = vllm.engine.request_builder.config.molecule_token_id
    vllm.engine.request_builder.style = record.style
    prompt = vllm.engine.request_builder.prompt(record.task, record.pair.molecules, record.question)
    (inputs,) = vllm.engine.engine.renderer.render_cmpl([prompt])
    params = SamplingParams(max_tokens=1, logprobs=1, logprob_token_ids=[placeholder])
    vllm.engine.engine.add_request("placeholder", inputs, params)
    (output,) = vllm.finished()
    got = output.outputs[0].logprobs[0][placeholder].logprob
    assert got == pytest.approx(float(record.first_logprobs[placeholder]), abs=2e-3)


def test_vllm(vllm, fixture):
    step = vllm.first_step(fixture.records)
    everything(step.top_equal, 40)
    assert step.largest < reference.LOGPROBS_WITHIN
    everything(vllm.texts(fixture.records, "greedy"), 40)
    beams = vllm.texts(fixture.records, "beam5")
    print(f"\nbeam5: {beams}")
    assert beams.equal >= 38
