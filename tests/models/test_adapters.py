"""Adapters of a checkpoint folder: reading, and refusal with the cause."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from moltc_vllm.models.adapters import AdapterError, load_adapters

Q0 = "base_model.model.model.decoder.layers.0.self_attn.q_proj"


def change_config(folder, **changes):
    path = folder / "adapters" / "ddi" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder, change):
    path = folder / "adapters" / "ddi" / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)


def test_load_adapters_reads_every_visible_folder(adapted):
    (adapted / "adapters" / ".ddi.partial").mkdir(exist_ok=True)
    (adapted / "adapters" / "README.md").write_text("not an adapter")
    ddi, solvation = load_adapters(adapted)
    assert (ddi.name, ddi.rank, len(ddi.layers)) == ("ddi", 4, 4)
    assert (solvation.name, solvation.rank, len(solvation.layers)) == ("solvation", 8, 4)
    layer = solvation.layers["model.decoder.layers.1.fc1"]
    assert (layer.a.shape, layer.b.shape, layer.scale) == ((8, 128), (256, 8), 0.5)


def test_folder_without_adapters_has_no_adapters(tiny, tmp_path):
    assert load_adapters(tiny) == []
    assert load_adapters(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"r": 0}, "rank 0 is not a positive integer"),
        ({"r": "4"}, "rank '4' is not a positive integer"),
        ({"r": True}, "rank True is not"),
        ({"rank_pattern": {"q_proj": -1}}, "rank -1 is not a positive integer"),
        ({"rank_pattern": [1]}, "rank_pattern is of type list"),
        ({"rank_pattern": {"q_proj(": 4}}, "pattern 'q_proj(': missing )"),
        ({"lora_alpha": None}, "lora_alpha None is not a positive number"),
        ({"lora_alpha": math.nan}, "lora_alpha nan is not a positive number"),
        ({"lora_alpha": 0}, "lora_alpha 0 is not a positive number"),
        ({"alpha_pattern": {"q_proj": "x"}}, "lora_alpha 'x' is not a positive number"),
        ({"use_dora": True}, "use_dora is set, which vLLM would not apply"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"bias": "lora_only"}, "bias is 'lora_only', which vLLM would not apply"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is set"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base weights"),
        ({"target_modules": ["q_proj", "gate_proj"]}, "target module 'gate_proj': the language"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target module 'lm_head': the language"),
        ({"target_modules": ["roj"]}, "target module 'roj': the language"),
        ({"target_modules": ["q_proj", "fc2"]}, "no weights for model.decoder.layers.0.fc2"),
        ({"target_modules": r".*\.fc2"}, "no weights for model.decoder.layers.0.fc2"),
        ({"target_modules": "all-linear"}, "no weights for model.decoder.layers.0.fc1"),
        ({"target_modules": 3}, "target_modules is of type int"),
        ({"r": 8}, "q_proj.lora_A has shape [4, 128], expected [8, 128]"),
        ({"rank_pattern": {"v_proj": 2}}, "v_proj.lora_A has shape [4, 128], expected [2, 128]"),
    ],
)
def test_invalid_adapter_config_is_refused(broken, changes, cause):
    change_config(broken, **changes)
    assert_refused(broken, cause)


def assert_refused(folder, cause):
    with pytest.raises(AdapterError) as error:
        load_adapters(folder)
    message = str(error.value)
    assert message.startswith("adapter 'ddi': ")
    assert cause in message
    assert "\n" not in message


@pytest.mark.parametrize("half", ["A", "B"])
def test_invalid_adapter_weights_are_refused(broken, half):
    key = f"{Q0}.lora_{half}.weight"
    path = broken / "adapters" / "ddi" / "adapter_model.safetensors"
    original = path.read_bytes()

    def check(change, cause):
        path.write_bytes(original)
        change_weights(broken, change)
        assert_refused(broken, cause)

    check(lambda t: t.pop(key), f"layers.0.self_attn.q_proj has no lora_{half}")
    check(lambda t: t.update({key: t[key].T.contiguous()}), f"q_proj.lora_{half} has shape")
    check(lambda t: t.update({key: t[key][..., None]}), f"q_proj.lora_{half} has shape")
    for value in (math.nan, math.inf):
        check(lambda t, value=value: t[key][0].fill_(value), "holds NaN or infinite values")
    check(lambda t: t.update({key: t[key].int()}), "is torch.int32, not floating point")
    other = key.replace("layers.0", "layers.2")
    check(lambda t: t.update({other: t[key]}), "no linear layer model.decoder.layers.2")
    other = "base_model.model.lm_head.lora_A.weight"
    check(lambda t: t.update({other: t[key]}), "no linear layer lm_head")
    other = "base_model.model.model.decoder.embed_tokens.lora_embedding_A"
    check(lambda t: t.update({other: t[key]}), "is not a LoRA weight of a linear layer")
    check(lambda t: t.clear(), "adapter_model.safetensors is empty")
    layer = [f"{Q0}.lora_{name}.weight" for name in "AB"]
    check(
        lambda t: [t.pop(name) for name in layer],
        "no weights for model.decoder.layers.0.self_attn.q_proj",
    )


def test_excluded_layer_needs_no_weights(broken):
    change_config(broken, layers_to_transform=0)
    change_weights(broken, lambda t: [t.pop(key) for key in list(t) if "layers.1" in key])
    (adapter,) = load_adapters(broken)
    assert len(adapter.layers) == 2


def test_missing_or_malformed_adapter_file_is_refused(broken):
    folder = broken / "adapters" / "ddi"
    weights = folder / "adapter_model.safetensors"
    original = weights.read_bytes()
    for content, cause in ((original[:-9], "cannot be read"), (b"", "cannot be read")):
        weights.write_bytes(content)
        assert_refused(broken, f"adapter_model.safetensors {cause}")
    weights.rename(folder / "adapter_model.bin")
    assert_refused(broken, "adapter_model.safetensors is missing")
    config = folder / "adapter_config.json"
    for content, cause in (("{", "is not JSON"), ("[]", "does not hold a JSON object")):
        config.write_text(content)
        assert_refused(broken, f"adapter_config.json {cause}")
    config.unlink()
    assert_refused(broken, "adapter_config.json is missing")


@pytest.mark.parametrize("prefix", ["", "language_model.", "base_model.model.language_model."])
def test_adapter_keys_may_have_other_prefixes(broken, prefix):
    expected = load_adapters(broken)[0].layers

    def rename(tensors):
        for key in list(tensors):
            tensors[prefix + key.removeprefix("base_model.model.")] = tensors.pop(key)

    change_weights(broken, rename)
    layers = load_adapters(broken)[0].layers
    assert layers.keys() == expected.keys()
    assert all(torch.equal(layers[name].a, expected[name].a) for name in layers)
