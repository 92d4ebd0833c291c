"""Bugs of the published code are fixed, or reproduced only for published checkpoints.

Test names have the bug numbers of ``docs/concepts/published-model.md``, section "Bugs and their
treatment". Bugs 14 to 17, 20 to 22, 25, 26 and 28 concern scripts without a counterpart here.
"""

import json

import pytest
import torch

from moltc_vllm.chem import MoleculeError, as_written_key, canonical_key
from moltc_vllm.models import (
    GraphEncoderConfig,
    Prompt,
    load_config,
    load_model,
    load_tokenizer,
    prepare_inputs,
)
from moltc_vllm.models.checkpoint import read_weights
from moltc_vllm.models.conversion.convert import split_projectors
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import TASKS, get_style, get_task
from moltc_vllm.tasks.engine import Pair
from tests.golden.fixture import Fixture, prompt_of
from tests.molecules import drug_pairs
from tests.paths import reference_dir

OWN, PUBLISHED = get_style("moltc"), get_style("moltc-2024")


def texts(engine, pairs, task="ddi"):
    answers = engine.submit(task, [Pair(row, pair) for row, pair in enumerate(pairs)])
    return [answer.text for _, answer in sorted(answers)]


def test_bug_1_answers_are_independent_of_batch(tiny, published):
    pairs = [*drug_pairs(5), ("O", "C" * 60)]
    for folder in (tiny, published):
        batched = texts(TorchEngine(folder, constrained=False, batch_size=6), pairs)
        alone = texts(TorchEngine(folder, constrained=False, batch_size=1), pairs)
        assert batched == alone
    # With `pad_query` every pair gets the padded answer.
    padded = [TorchEngine(published, batch_size=size, pad_query=True) for size in (1, 6)]
    assert texts(padded[0], pairs) == texts(padded[1], pairs) != batched


def test_bug_2_chat_template_trains_end_token(tiny):
    tokenizer = load_tokenizer(tiny)
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    trained = tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]
    assert trained[-1] == tokenizer.eos_token_id
    # Published weights do not stop, so the answer is found within the text.
    task = get_task("solvation")
    text = f"{task.write(-4.21)} so the accurate value is -4.21; so the"
    assert PUBLISHED.read(task, text).value == -4.21
    assert OWN.read(task, text).status == "unparsed"


def test_bug_3_placeholder_row_is_deterministic(published, published_unpinned, tmp_path):
    second = Fixture(reference_dir()).convert(tmp_path / "again")
    for name in ("model.safetensors", "card.json", "config.json"):
        assert (second / name).read_bytes() == (published / name).read_bytes()
    rows = dict(read_weights(published_unpinned))[
        "language_model.model.decoder.embed_tokens.weight"
    ]
    assert torch.allclose(rows[-1], rows[:-1].mean(0), atol=1e-6)
    # Without a known row the logit of the placeholder is masked.
    for folder, masked in ((published_unpinned, True), (published, False)):
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        inputs = prepare_inputs([Prompt("<mol>", ["CCO"], "ddi")], tokenizer, model.config)
        out = model.generate(**inputs._asdict(), max_new_tokens=1, eos_token_id=-1)
        logprob = out.first_logprobs[0, model.config.molecule_token_id]
        assert torch.isfinite(logprob) == (not masked)


def test_bug_4_second_molecule_is_encoded_with_frozen_graph_encoder(tiny):
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    model.molecule_encoder.graph_encoder.requires_grad_(False)
    pair, alone = (
        prepare_inputs([Prompt("<mol>" * len(smiles), smiles, "ddi")], tokenizer, model.config)
        for smiles in (("CCO", "CC(N)C"), ("CC(N)C",))
    )
    first, second = model.encode_molecules(pair.molecules, pair.projector)
    (expected,) = model.encode_molecules(alone.molecules, alone.projector)
    assert second.requires_grad
    assert torch.allclose(second, expected, atol=1e-5)
    assert not torch.allclose(first, second, atol=1e-2)


def test_bug_5_projectors_can_be_split_by_role(published, tmp_path):
    split_projectors(published, tmp_path / "split", "role")
    assert load_config(tmp_path / "split").projector_sharing == "role"
    model = load_model(tmp_path / "split")
    with torch.no_grad():
        model.projectors["role_1"].weight.neg_()
    inputs = prepare_inputs(
        [Prompt("<mol> <mol>", ("CCO", "CCO"), "ddi")], load_tokenizer(published), model.config
    )
    first, second = model.encode_molecules(inputs.molecules, inputs.projector)
    assert not torch.allclose(first, second)


def test_bug_6_own_style_shows_whole_smiles():
    smiles = "C" * 200
    task = get_task("ddi")
    assert smiles in OWN.compose(task, (smiles, "O")).text
    assert smiles[:128] + "[END" in PUBLISHED.compose(task, (smiles, "O")).text


def test_bug_7_self_loops_have_separate_row_in_new_models(tiny, published):
    assert load_config(tiny).graph_encoder_config.self_loop_bond_type == 4
    assert load_config(published).graph_encoder_config.self_loop_bond_type == 0
    assert (
        GraphEncoderConfig().self_loop_bond_type == 0
    )  # default of a config.json without the setting


def test_bug_8_limits_suffice_for_every_answer(tiny):
    tokenizer = load_tokenizer(tiny)
    for task in TASKS.values():
        for text in task.kind.examples():
            assert len(tokenizer(text)["input_ids"]) < OWN.limits(task).max_new_tokens
    assert PUBLISHED.limits(get_task("ddi_type")).max_new_tokens == 29  # truncated, as published


@pytest.mark.parametrize("key", [canonical_key, as_written_key])
def test_bug_9_unsupported_chirality_is_rejected_by_name(key):
    with pytest.raises(MoleculeError, match="SQUAREPLANAR"):
        key("[Pt@SP1](F)(Cl)(Br)I")
    rows = [json.loads(line) for line in (reference_dir() / "bad_smiles.jsonl").open()]
    for row in rows:  # molecules that the published code fails on
        with pytest.raises(MoleculeError):
            key(row["smiles"])


def test_bug_10_limits_count_new_tokens(tiny, published):
    task = get_task("ask")
    for folder in (tiny, published):
        engine = TorchEngine(folder, constrained=False)
        prompt = engine._prompt(task, Pair(0, ("CCO", "O")), "Why?")
        engine._stop = None
        (output,) = engine.generate(
            task, [prompt], engine.style.limits(task)._replace(max_new_tokens=5)
        )
        assert len(output.token_ids) == 5
    limits = PUBLISHED.limits_from_lengths(max_length=30, min_length=8)
    assert (limits.max_new_tokens, limits.min_new_tokens, limits.length_offset) == (29, 7, 1)
    assert OWN.limits(task).length_offset == 0


def test_bug_11_own_style_does_not_edit_texts():
    text = "is above 1.0 , says #Drug1 ?"
    assert OWN.clean(text) == text
    assert PUBLISHED.clean(text) == "is above 1.0, says #Drug1?"


def test_bug_12_intervals_are_not_empty_and_suit_their_property():
    for name in ("solvation", "absorption", "lifetime", "quantum_yield"):
        kind = get_task(name).kind
        low, high = kind.parse(kind.write(1.0 if name != "absorption" else 400.0)).interval
        assert low < high  # a multiple of the width gives the published code an empty interval
    assert get_task("quantum_yield").kind.interval_width < 1
    published_text = (
        "The Absorption max of these two molecules is above 420 and below 420, so the accurate "
        "value is 420;"
    )
    assert PUBLISHED.read(get_task("absorption"), published_text).likeliest_interval == (420, 420)


def test_bug_13_and_18_each_task_has_its_own_question():
    questions = {
        name: PUBLISHED.compose(get_task(name), ("C", "O")).text.rpartition("</s> . ")[2]
        for name in ("absorption", "emission", "lifetime", "solvation", "ddi")
    }
    assert len(set(questions.values())) == len(questions)
    assert "Absorption" in questions["absorption"]


def test_bug_19_flags_can_be_off():
    from typer.main import get_command

    from moltc_vllm.cli import app

    flags = [
        option
        for command in get_command(app).commands.values()
        for option in command.params
        if getattr(option, "is_flag", False)
    ]
    assert flags
    # A flag that is on by default has an option that turns it off.
    assert all(option.default in (False, None) or option.secondary_opts for option in flags)


def test_bug_23_text_without_number_is_unparsed():
    for style in (OWN, PUBLISHED):
        answer = style.read(get_task("solvation"), "I do not know")
        assert (answer.status, answer.value) == ("unparsed", None)


def test_bug_24_substring_is_not_an_answer():
    # The published accuracy accepts a prefix, without the last character.
    answer = OWN.read(get_task("ddi"), "#Drug1 and #Drug2 exhibit drug-drug interactio")
    assert answer.status == "unparsed"


def test_bug_27_given_language_model_is_used(published, tmp_path):
    folder = Fixture(reference_dir()).convert(
        tmp_path / "c", lora=None, language_model="opt_with_bias"
    )
    assert load_config(folder).text_config.enable_bias
    assert not load_config(published).text_config.enable_bias


def test_bug_29_beams_encode_prompt_and_molecules_once(published):
    model, tokenizer = load_model(published), load_tokenizer(published)
    record = Fixture(reference_dir()).records[0]
    inputs = prepare_inputs([prompt_of(record)], tokenizer, model.config)
    calls = []
    hook = model.molecule_encoder.register_forward_hook(lambda *_: calls.append("molecules"))
    first = model.language_model.register_forward_hook(
        lambda _m, _a, kwargs, _o: calls.append(kwargs.get("inputs_embeds") is not None),
        with_kwargs=True,
    )
    model.beam_search(**inputs._asdict(), width=5, limits=record.limits("beam5"), eos_token_id=-1)
    hook.remove()
    first.remove()
    assert calls.count("molecules") == 1
    assert calls.count(True) == 1
    assert calls.count(False) == record.limits("beam5").max_new_tokens - 1
