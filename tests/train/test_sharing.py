"""Dynamic parameter sharing: on gradients, and on the weights that are saved."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from moltc_vllm.models.checkpoint import (
    CheckpointError,
    load_config,
    load_model,
    load_tokenizer,
    read_card,
    read_weights,
)
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.train.batch import Collator, Item
from moltc_vllm.train.examples import Molecules
from moltc_vllm.train.loop import train
from moltc_vllm.train.loss import AnswerLoss
from moltc_vllm.train.recipe import Loss
from moltc_vllm.train.sharing import _set_dropout, prepare_model
from tests.train.conftest import Quiet
from tests.train.test_loop import small

PARTS = {"combisolv_exp": {"pairs": 6}, "zhangddi": {"pairs": 6}}


@pytest.fixture(scope="module")
def pretrained(made_data, tmp_path_factory):
    recipe = small(stage="pretrain", projectors="shared", parts=PARTS, steps=2, average=0.0)
    return train(recipe, made_data, tmp_path_factory.mktemp("pre") / "run", Quiet()).checkpoint


@pytest.fixture(scope="module")
def finetuned(made_data, pretrained, tmp_path_factory):
    run = tmp_path_factory.mktemp("fine") / "run"
    recipe = small(projectors="task_role", parts=PARTS, steps=2, average=0.0)
    return train(recipe, made_data, run, Quiet(), checkpoint=pretrained).checkpoint


def gradients(folder, task, molecules):
    """Gradients of one pair's loss, by name of the weight."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    known = Molecules(model.config)
    known.add(molecules, workers=0)
    answer = tokenizer.encode(get_task(task).write(1), add_special_tokens=False)
    item = Item(get_task(task), [known.number(one) for one in molecules], answer, 1.0)
    batch = Collator(known, model.config, tokenizer)([item])
    AnswerLoss(Loss(), tokenizer)(model.eval(), batch).total.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def touched(grads, prefix):
    return {
        name
        for name, grad in grads.items()
        if name.startswith(prefix) and grad is not None and bool(grad.abs().sum() > 0)
    }


def test_both_molecules_reach_one_encoder_and_one_projector_in_pretraining(pretrained):
    grads = gradients(pretrained, "solvation", ["CCBr", "CS(C)=O"])
    assert touched(grads, "projectors.") == {
        "projectors.shared.weight",
        "projectors.shared.bias",
    }
    # The rows of atoms that only the first, and only the second molecule has: Br 34, S 15.
    atoms = grads["molecule_encoder.graph_encoder.atom_type.weight"]
    assert bool(atoms[34].abs().sum() > 0)
    assert bool(atoms[15].abs().sum() > 0)
    assert bool(atoms[52].abs().sum() == 0)  # iodine is in neither


def test_each_role_and_task_has_a_projector_of_its_own_in_finetuning(finetuned):
    grads = gradients(finetuned, "ddi", ["CCBr", "CS(C)=O"])
    assert touched(grads, "projectors.") == {
        f"projectors.ddi_role_{role}.{part}" for role in (0, 1) for part in ("weight", "bias")
    }
    assert not torch.equal(
        grads["projectors.ddi_role_0.weight"], grads["projectors.ddi_role_1.weight"]
    )
    assert touched(grads, "molecule_encoder.graph_encoder.atom_type")


def test_saved_weights_tell_the_same(pretrained, finetuned):
    before, after = dict(read_weights(pretrained)), dict(read_weights(finetuned))
    assert [name for name in before if name.startswith("projectors.")] == [
        "projectors.shared.bias",
        "projectors.shared.weight",
    ]
    shared = before["projectors.shared.weight"]
    weights = {
        name.split(".")[1]: after[name]
        for name in after
        if name.startswith("projectors.") and name.endswith(".weight")
    }
    # Of the tasks that were trained, and of no other; each went its own way from the shared one.
    assert set(weights) == {
        f"{task}_role_{role}" for task in ("ddi", "solvation") for role in (0, 1)
    }
    assert all(bool((weight - shared).abs().max() > 0) for weight in weights.values())
    one, other = (after[f"projectors.solvation_role_{role}.weight"] for role in (0, 1))
    assert not torch.equal(one, other)
    encoders = [name for name in after if name.startswith("molecule_encoder.")]
    assert encoders == [name for name in before if name.startswith("molecule_encoder.")]


@pytest.mark.parametrize("way", ["frozen", "lora"])
def test_a_language_model_can_be_left_as_it_is(pretrained, made_data, tmp_path, way):
    recipe = small(language_model=way, parts={"combisolv_exp": {"pairs": 6}}, steps=2)
    checkpoint = train(
        recipe, made_data, tmp_path / "run", Quiet(), checkpoint=pretrained
    ).checkpoint
    before, after = dict(read_weights(pretrained)), dict(read_weights(checkpoint))
    for name in before:
        if name.startswith("language_model."):
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    adapters = list((checkpoint / "adapters").glob("*")) if way == "lora" else []
    assert [path.name for path in adapters] == (["solvation"] if way == "lora" else [])
    if way == "lora":  # it is used, and changes answers
        pair = [Pair(0, ("CCO", "O"))]
        ((_, with_it),) = TorchEngine(checkpoint).submit("solvation", pair)
        assert with_it.status == "ok"


def test_another_task_for_the_same_projectors(pretrained, made_data, tmp_path):
    recipe = small(projectors="shared", parts={"drugbank86": {"pairs": 6}}, steps=1)
    checkpoint = train(
        recipe, made_data, tmp_path / "run", Quiet(), checkpoint=pretrained
    ).checkpoint
    assert load_config(checkpoint).tasks == ["ddi", "solvation", "ddi_type"]
    stages = read_card(checkpoint)["stages"]
    assert [stage["stage"] for stage in stages] == ["pretrain", "finetune"]


def test_projectors_that_are_missing_are_named(finetuned, made_data, tmp_path):
    recipe = small(projectors="task_role", parts={"drugbank86": {"pairs": 6}}, steps=1)
    with pytest.raises(CheckpointError, match="has no projectors of ddi_type"):
        train(recipe, made_data, tmp_path / "run", Quiet(), checkpoint=finetuned)


def test_what_is_trained_is_single_precision(pretrained):
    for way, kept in (("full", torch.float32), ("lora", torch.bfloat16)):
        model = load_model(pretrained, dtype=torch.bfloat16)
        prepare_model(model, small(language_model=way))
        weights = dict(model.named_parameters())
        assert all(one.dtype == torch.float32 for one in weights.values() if one.requires_grad)
        language = [one for name, one in weights.items() if name.startswith("language_model")]
        assert {one.dtype for one in language if not one.requires_grad} <= {kept}


def test_dropout_reaches_every_language_model():
    for kind in (
        LlamaConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            vocab_size=9,
            num_attention_heads=2,
        ),
        GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9),
    ):
        model = AutoModelForCausalLM.from_config(kind)
        _set_dropout(model, 0.25)
        rates = [part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)]
        rates += [
            part.attention_dropout for part in model.modules() if hasattr(part, "attention_dropout")
        ]
        assert rates
        assert set(rates) == {0.25}


def test_lora_trains_little(pretrained):
    model = load_model(pretrained)
    prepare_model(model, small(language_model="lora"))
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    language = {name for name in trained if name.startswith("language_model.")}
    assert language
    assert all("lora_" in name for name in language)
    assert any(name.startswith("molecule_encoder.graph_encoder") for name in trained)
