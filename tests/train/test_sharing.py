"""Dynamic parameter sharing, seen in gradients and in saved weights."""

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
from moltc_vllm.train.batch import Collator
from moltc_vllm.train.examples import MoleculeTable
from moltc_vllm.train.loop import train
from moltc_vllm.train.loss import AnswerLoss
from moltc_vllm.train.recipe import LossSettings
from moltc_vllm.train.sharing import _set_dropout, prepare_model
from tests.train.helpers import PairItem, RecordingProgress, small_recipe

MIXTURE = {"combisolv_exp": {"batch_size": 6}, "zhangddi": {"batch_size": 6}}
OTHER_MIXTURE = {"drugbank86": {"batch_size": 6}}


def train_checkpoint(data, folder, checkpoint=None, **changes):
    """Train for two steps and return the checkpoint."""
    recipe = small_recipe(**{"mixture": MIXTURE, "max_steps": 2, **changes})
    result = train(recipe, data, folder / "run", RecordingProgress(), checkpoint=checkpoint)
    return result.checkpoint


@pytest.fixture(scope="module")
def pretrained(generated_data, tmp_path_factory):
    return train_checkpoint(
        generated_data,
        tmp_path_factory.mktemp("pretrained"),
        stage="pretrain",
        projectors="shared",
        ema_decay=0.0,
    )


@pytest.fixture(scope="module")
def finetuned(generated_data, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuned")
    return train_checkpoint(
        generated_data, folder, pretrained, projectors="task_role", ema_decay=0.0
    )


def gradients(folder, task, smiles):
    """Return the gradients of one pair's loss, by name of the weight."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    molecules = MoleculeTable(model.config)
    molecules.add(smiles, workers=0)
    answer = tokenizer.encode(get_task(task).write(1), add_special_tokens=False)
    item = PairItem(get_task(task), [molecules.index(text) for text in smiles], answer, 1.0)
    batch = Collator(molecules, model.config, tokenizer)([item.block()])
    AnswerLoss(LossSettings(), tokenizer)(model.eval(), batch).total.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def with_gradient(grads, prefix):
    return {
        name
        for name, grad in grads.items()
        if name.startswith(prefix) and grad is not None and bool(grad.abs().sum() > 0)
    }


def test_pretraining_shares_encoder_and_projector(pretrained):
    grads = gradients(pretrained, "solvation", ["CCBr", "CS(C)=O"])
    assert with_gradient(grads, "projectors.") == {
        "projectors.shared.weight",
        "projectors.shared.bias",
    }
    # Bromine (row 34) is only in the first molecule, sulfur (15) only in the second one.
    atoms = grads["molecule_encoder.graph_encoder.atom_type.weight"]
    assert bool(atoms[34].abs().sum() > 0)
    assert bool(atoms[15].abs().sum() > 0)
    assert bool(atoms[52].abs().sum() == 0)  # neither has iodine


def test_finetuning_has_projector_per_task_and_role(finetuned):
    grads = gradients(finetuned, "ddi", ["CCBr", "CS(C)=O"])
    assert with_gradient(grads, "projectors.") == {
        f"projectors.ddi_role_{role}.{part}" for role in (0, 1) for part in ("weight", "bias")
    }
    assert not torch.equal(
        grads["projectors.ddi_role_0.weight"], grads["projectors.ddi_role_1.weight"]
    )
    assert with_gradient(grads, "molecule_encoder.graph_encoder.atom_type")


def test_pretrained_checkpoint_has_one_projector(pretrained):
    names = [name for name, _ in read_weights(pretrained) if name.startswith("projectors.")]
    assert names == ["projectors.shared.bias", "projectors.shared.weight"]


def test_finetuned_checkpoint_has_projectors_of_trained_tasks_only(pretrained, finetuned):
    before, after = dict(read_weights(pretrained)), dict(read_weights(finetuned))
    weights = {
        name.split(".")[1]: after[name]
        for name in after
        if name.startswith("projectors.") and name.endswith(".weight")
    }
    assert set(weights) == {
        f"{task}_role_{role}" for task in ("ddi", "solvation") for role in (0, 1)
    }
    # All of them started from the shared weights and were trained.
    shared = before["projectors.shared.weight"]
    assert all(bool((weight - shared).abs().max() > 0) for weight in weights.values())
    assert not torch.equal(weights["solvation_role_0"], weights["solvation_role_1"])
    encoders = [name for name in after if name.startswith("molecule_encoder.")]
    assert encoders == [name for name in before if name.startswith("molecule_encoder.")]


@pytest.mark.parametrize("language_model", ["frozen", "lora"])
def test_language_model_weights_stay_frozen(pretrained, generated_data, tmp_path, language_model):
    checkpoint = train_checkpoint(
        generated_data,
        tmp_path,
        pretrained,
        language_model=language_model,
        mixture={"combisolv_exp": {"batch_size": 6}},
    )
    before, after = dict(read_weights(pretrained)), dict(read_weights(checkpoint))
    for name in before:
        if name.startswith("language_model."):
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    adapters = [path.name for path in (checkpoint / "adapters").glob("*")]
    assert adapters == (["solvation"] if language_model == "lora" else [])
    if language_model == "lora":
        ((_, answer),) = TorchEngine(checkpoint).submit("solvation", [Pair(0, ("CCO", "O"))])
        assert answer.status == "ok"


def test_shared_projector_accepts_new_task(pretrained, generated_data, tmp_path):
    checkpoint = train_checkpoint(
        generated_data,
        tmp_path,
        pretrained,
        projectors="shared",
        mixture=OTHER_MIXTURE,
        max_steps=1,
    )
    assert load_config(checkpoint).tasks == ["ddi", "solvation", "ddi_type"]
    stages = read_card(checkpoint)["stages"]
    assert [stage["stage"] for stage in stages] == ["pretrain", "finetune"]


def test_task_without_projector_is_an_error(finetuned, generated_data, tmp_path):
    with pytest.raises(CheckpointError, match="has no projectors for ddi_type"):
        train_checkpoint(
            generated_data, tmp_path, finetuned, projectors="task_role", mixture=OTHER_MIXTURE
        )


@pytest.mark.parametrize(
    ("language_model", "frozen_dtype"), [("full", torch.float32), ("lora", torch.bfloat16)]
)
def test_prepare_model_makes_trained_weights_float32(pretrained, language_model, frozen_dtype):
    model = load_model(pretrained, dtype=torch.bfloat16)
    prepare_model(model, small_recipe(language_model=language_model))
    weights = dict(model.named_parameters())
    assert all(w.dtype == torch.float32 for w in weights.values() if w.requires_grad)
    language = [w for name, w in weights.items() if name.startswith("language_model")]
    assert {w.dtype for w in language if not w.requires_grad} <= {frozen_dtype}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            vocab_size=9,
            num_attention_heads=2,
        ),
        GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9),
    ],
    ids=["llama", "gpt2"],
)
def test_set_dropout_reaches_every_layer(config):
    model = AutoModelForCausalLM.from_config(config)
    _set_dropout(model, 0.25)
    rates = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    rates += [
        module.attention_dropout
        for module in model.modules()
        if hasattr(module, "attention_dropout")
    ]
    assert rates
    assert set(rates) == {0.25}


def test_lora_trains_adapters_and_encoder_only(pretrained):
    model = load_model(pretrained)
    prepare_model(model, small_recipe(language_model="lora"))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    language = {name for name in trained if name.startswith("language_model.")}
    assert language
    assert all("lora_" in name for name in language)
    assert any(name.startswith("molecule_encoder.graph_encoder") for name in trained)
