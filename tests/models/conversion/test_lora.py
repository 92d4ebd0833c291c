"""LoRA adapters of a conversion: merged, kept, or rejected."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moltc_vllm.models import load_model
from moltc_vllm.models.conversion.convert import convert_published
from moltc_vllm.models.conversion.lora import read_lora
from moltc_vllm.models.weights import WeightsError
from tests.models.conversion import published_files as files
from tests.paths import reference_dir

ALL_MODULES = {**files.ATTENTION, **files.FEED_FORWARDS}
Q0 = "model.decoder.layers.0.self_attn.q_proj"


def language_weights(folder):
    weights = load_file(folder / "model.safetensors")
    prefix = "language_model."
    return {k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)}


def merged_weight(weight, a, b, scale):
    """Return W + scale B A, computed with numpy in float64."""
    delta = np.einsum("or,ri->oi", b.double().numpy(), a.double().numpy()) * scale
    return torch.from_numpy(weight.double().numpy() + delta).to(weight.dtype)


@pytest.mark.parametrize(
    ("name", "scale", "modules"), [("lora_full", 2.0, 20), ("lora_default", 4.0, 8)]
)
def test_convert_merges_reference_adapters(tmp_path, name, scale, modules):
    folder = reference_dir()
    base = torch.load(folder / "galactica-1.3b" / "pytorch_model.bin", weights_only=True)
    lora = torch.load(folder / name / "adapter_model.bin", weights_only=True)
    report = convert_published(
        folder / "stage2.ckpt", folder / "galactica-1.3b", tmp_path / "c", lora=folder / name
    )
    weights = language_weights(tmp_path / "c")
    changed = 0
    for key, weight in base.items():
        a = lora.get(f"base_model.model.{key.removesuffix('.weight')}.lora_A.weight")
        if a is not None:
            b = lora[f"base_model.model.{key.removesuffix('.weight')}.lora_B.weight"]
            expected = merged_weight(weight, a, b, scale)
            torch.testing.assert_close(weights[key], expected, rtol=0, atol=1e-7)
            assert not torch.equal(weight, weights[key])
            changed += 1
        elif key != "lm_head.weight":
            assert torch.equal(weights[key][: len(weight)], weight)
    assert changed == modules
    assert report.card["conversion"]["lora"] == {
        "from": name,
        "place": "merged",
        "modules": modules,
        "r": 32 / scale,
        "alpha": 32.0,
        "scale": scale,
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_merge_rounds_once_to_weight_dtype(tmp_path, small, dtype):
    folder = files.write_language_model(tmp_path / "lm", dtype=dtype)
    convert_published(small.lightning, folder, tmp_path / "c", lora=small.lora)
    base = torch.load(folder / "pytorch_model.bin", weights_only=True)
    lora = torch.load(small.lora / "adapter_model.bin", weights_only=True)
    weights = language_weights(tmp_path / "c")
    for module in ALL_MODULES:
        a, b = (lora[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
        expected = merged_weight(base[f"{module}.weight"], a, b, 32 / 4)
        assert weights[f"{module}.weight"].dtype == dtype
        rounding = 1e-15 if dtype == torch.float64 else 0
        torch.testing.assert_close(weights[f"{module}.weight"], expected, rtol=0, atol=rounding)


def test_rank_stabilized_adapter_scales_by_root_of_rank(tmp_path, small):
    folder = files.write_lora(tmp_path / "lora", files.ATTENTION, use_rslora=True)
    assert read_lora(folder).scale == 32 / 2
    folder = files.write_lora(tmp_path / "plain", files.ATTENTION, use_rslora=False)
    assert read_lora(folder).scale == 32 / 4


def test_merge_transposes_update_for_gpt2_layout(tmp_path, small):
    folder = files.write_language_model(tmp_path / "gpt2", "gpt2")
    modules = {f"transformer.h.{n}.attn.c_attn": (3 * files.HIDDEN, files.HIDDEN) for n in (0, 1)}
    lora = files.write_lora(tmp_path / "lora", modules, fan_in_fan_out=True)
    convert_published(small.lightning, folder, tmp_path / "c", lora=lora)
    base = torch.load(folder / "pytorch_model.bin", weights_only=True)
    lora_weights = torch.load(lora / "adapter_model.bin", weights_only=True)
    weights = language_weights(tmp_path / "c")
    for module in modules:
        a, b = (lora_weights[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
        expected = merged_weight(base[f"{module}.weight"].T, a, b, 8.0).T
        torch.testing.assert_close(weights[f"{module}.weight"], expected, rtol=0, atol=1e-7)


def test_convert_rejects_wrong_fan_in_fan_out(tmp_path, small):
    """PEFT corrects the setting with a warning; for square matrices an error would be invisible."""
    folder = files.write_lora(tmp_path / "lora", files.ATTENTION, fan_in_fan_out=True)
    with pytest.raises(WeightsError, match=r"fan_in_fan_out is True, but .* the other way"):
        convert_published(small.lightning, small.language_model, tmp_path / "c", lora=folder)


def test_adapter_is_written_beside_unchanged_weights(tmp_path, small):
    kept = convert_published(
        small.lightning,
        small.language_model,
        tmp_path / "ddi-model",
        lora=small.lora,
        lora_as="adapter",
        task="ddi",
    )
    convert_published(small.lightning, small.language_model, tmp_path / "plain")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    with_adapter = load_file(tmp_path / "ddi-model" / "model.safetensors")
    assert all(torch.equal(plain[key], with_adapter[key]) for key in plain)

    folder = tmp_path / "ddi-model" / "adapters" / "ddi"
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    stored = torch.load(small.lora / "adapter_model.bin", weights_only=True)
    weights = load_file(folder / "adapter_model.safetensors")
    assert weights.keys() == stored.keys()
    assert all(torch.equal(weights[key], stored[key]) for key in stored)
    config = json.loads((folder / "adapter_config.json").read_text())
    given = json.loads((small.lora / "adapter_config.json").read_text())
    assert config == {**given, "base_model_name_or_path": "ddi-model"}
    assert kept.card["task"] == "ddi"
    assert kept.card["conversion"]["lora"]["place"] == "adapters/ddi"
    card = json.loads((tmp_path / "ddi-model" / "card.json").read_text())
    assert card["sha256"].keys() == {
        "model.safetensors",
        "adapters/ddi/adapter_model.safetensors",
    }


def test_adapter_without_task_keeps_dtype(tmp_path, small):
    folder = files.write_lora(tmp_path / "half", files.ATTENTION)
    weights = torch.load(folder / "adapter_model.bin", weights_only=True)
    (folder / "adapter_model.bin").unlink()
    half = {key: tensor.bfloat16() for key, tensor in weights.items()}
    save_file(half, folder / "adapter_model.safetensors")
    convert_published(
        small.lightning, small.language_model, tmp_path / "c", lora=folder, lora_as="adapter"
    )
    weights = load_file(tmp_path / "c" / "adapters" / "lora" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="unknown task 'drugs'; known tasks: ddi"):
        convert_published(small.lightning, small.language_model, tmp_path / "d", task="drugs")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("use", ["merge", "adapter"])
def test_kept_adapter_computes_same_as_merged_weights(tmp_path, small, use):
    """The adapter applied at run time gives the same logits as the merged weights."""
    from moltc_vllm.models.adapter_switcher import AdapterSwitcher
    from moltc_vllm.models.adapters import load_adapters

    merged, kept = tmp_path / "merged", tmp_path / "kept"
    for folder, lora_as in ((merged, "merge"), (kept, "adapter")):
        convert_published(
            small.lightning,
            small.language_model,
            folder,
            lora=small.lora,
            lora_as=lora_as,
            task="ddi",
        )
    ids = torch.arange(3, 20)[None]
    model = load_model(kept)
    switched = AdapterSwitcher(model.language_model, load_adapters(kept))
    with torch.no_grad(), switched.activate("ddi" if use == "merge" else "solvation"):
        logits = model(ids).logits
    with torch.no_grad():
        expected = load_model(merged)(ids).logits
    equal = torch.allclose(logits[..., :-1], expected[..., :-1], atol=1e-4)
    assert equal == (use == "merge")


UNSUPPORTED = {
    "use_dora": True,
    "lora_bias": True,
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "rank_pattern": {"q_proj": 8},
    "alpha_pattern": {"q_proj": 8},
    "layers_to_transform": [0],
    "exclude_modules": ["v_proj"],
    "layer_replication": [[0, 2]],
    "trainable_token_indices": [5],
    "init_lora_weights": "pissa",
    "task_type": "SEQ_CLS",
    "peft_type": "IA3",
    "r": 0,
    "lora_alpha": None,
    "target_modules": None,
    "future_setting": {"a": 1},
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_read_lora_rejects_unsupported_settings(tmp_path, name):
    folder = files.write_lora(tmp_path / "lora", files.ATTENTION, **{name: UNSUPPORTED[name]})
    with pytest.raises(WeightsError, match=rf"adapter_config\.json: {name} is .*not supported"):
        read_lora(folder)


def test_read_lora_accepts_defaults_of_later_peft(tmp_path):
    defaults = {
        "use_dora": False,
        "rank_pattern": {},
        "loftq_config": {},
        "layers_to_transform": None,
        "megatron_core": "megatron.core",
        "qalora_group_size": 16,
        "peft_version": "0.18.0",
        "corda_config": None,
    }
    assert read_lora(files.write_lora(tmp_path / "lora", files.ATTENTION, **defaults)).rank == 4


@pytest.mark.parametrize(
    ("modules", "changes", "reason"),
    [
        ({"model.decoder.layers.7.self_attn.q_proj": (32, 32)}, {}, "has no matrix model"),
        ({**ALL_MODULES, Q0: (32, 64)}, {}, r"B A has shape \[32, 64\], expected \[32, 32\]"),
        (ALL_MODULES, {"target_modules": ["q_proj", "v_proj"]}, "fc1 is not among target_modules"),
        (
            files.ATTENTION,
            {"target_modules": ["q_proj", "v_proj", "fc1"]},
            "missing weights for .*fc1",
        ),
        ({Q0: (32, 32)}, {}, "missing weights for model.decoder.layers.1.self_attn.q_proj"),
        (files.ATTENTION, {"target_modules": r".*\.[qk]_proj"}, "v_proj is not among"),
        ({"lm_head": (300, 32)}, {}, "has no matrix lm_head"),
    ],
)
def test_convert_rejects_adapter_of_another_model(tmp_path, small, modules, changes, reason):
    folder = files.write_lora(tmp_path / "lora", modules, **changes)
    with pytest.raises(WeightsError, match=reason) as caught:
        convert_published(small.lightning, small.language_model, tmp_path / "c", lora=folder)
    assert caught.value.details
    assert not (tmp_path / "c").exists()


def test_read_lora_reports_damaged_files(tmp_path, small):
    lost = f"base_model.model.{Q0}.lora_B.weight"
    with pytest.raises(WeightsError, match=f"missing weight lora_B of {Q0}"):
        read_lora(files.write_lora(tmp_path / "a", files.ATTENTION, drop=[lost]))
    with pytest.raises(WeightsError, match=r"lora_A has shape \[4, 32\].*expected \[8, in\]"):
        read_lora(files.write_lora(tmp_path / "b", files.ATTENTION, r=8, rank=4))
    folder = files.write_lora(tmp_path / "flat", files.ATTENTION)
    weights = torch.load(folder / "adapter_model.bin", weights_only=True)
    flat = f"base_model.model.{Q0}.lora_A.weight"
    torch.save({**weights, flat: torch.zeros(4)}, folder / "adapter_model.bin")
    with pytest.raises(WeightsError, match=r"lora_A has shape \[4\] and"):
        read_lora(folder)
    folder = files.write_lora(tmp_path / "c", files.ATTENTION)
    weights = torch.load(folder / "adapter_model.bin", weights_only=True)
    torch.save(
        {**weights, "base_model.model.lm_head.bias": torch.zeros(3)}, folder / "adapter_model.bin"
    )
    with pytest.raises(WeightsError, match=r"superfluous weight base_model\.model\.lm_head\.bias"):
        read_lora(folder)
    weights[lost][0, 0] = float("inf")
    torch.save(weights, folder / "adapter_model.bin")
    with pytest.raises(WeightsError, match=f"adapter_model.bin: {lost} holds NaN or infinite"):
        read_lora(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(
        WeightsError, match=r"neither adapter_model.safetensors nor adapter_model.bin"
    ):
        read_lora(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"12345")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_lora(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not JSON"):
        read_lora(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match=r"it has no adapter_config\.json"):
        read_lora(folder)
    with pytest.raises(WeightsError, match="is not a folder"):
        read_lora(tmp_path / "nowhere")


def test_merge_rejects_overflow(tmp_path, small):
    folder = files.write_language_model(tmp_path / "lm", dtype=torch.float16)
    lora = files.write_lora(tmp_path / "lora", files.ATTENTION, lora_alpha=1e7)
    with pytest.raises(WeightsError, match=r"not finite in torch.float16 after merging"):
        convert_published(small.lightning, folder, tmp_path / "c", lora=lora)
    assert {path.name for path in tmp_path.iterdir()} == {"lm", "lora"}


@pytest.fixture(scope="module")
def stored_lora(small):
    """LoRA weights as newer MolCA code stores them in the Lightning file."""
    torch.manual_seed(2)
    weights = files.lora_weights(files.ATTENTION, 4, ".default")
    return {f"blip2opt.opt_model.{key}": tensor for key, tensor in weights.items()}


def test_lora_in_lightning_file_is_merged_or_kept(tmp_path, small, stored_lora):
    hyper_parameters = {
        **files.HYPER_PARAMETERS,
        "llm_tune": "lora",
        "lora_alpha": 32,
        "peft_config": None,
    }
    state = {**small.state, **stored_lora}
    path = files.write_lightning(tmp_path / "s.ckpt", state, hyper_parameters=hyper_parameters)
    report = convert_published(path, small.language_model, tmp_path / "c")
    assert report.card["conversion"]["lora"]["scale"] == 8.0
    assert report.card["conversion"]["lora"]["from"] == "s.ckpt"
    base = torch.load(small.language_model / "pytorch_model.bin", weights_only=True)
    a, b = (
        stored_lora[f"blip2opt.opt_model.base_model.model.{Q0}.lora_{p}.default.weight"]
        for p in "AB"
    )
    expected = merged_weight(base[f"{Q0}.weight"], a, b, 8.0)
    torch.testing.assert_close(
        language_weights(tmp_path / "c")[f"{Q0}.weight"], expected, rtol=0, atol=1e-7
    )
    convert_published(path, small.language_model, tmp_path / "d", lora_as="adapter")
    adapter = read_lora(tmp_path / "d" / "adapters" / "lora")
    assert adapter.scale == 8.0
    assert torch.equal(adapter.pairs[Q0][0], a)

    with pytest.raises(WeightsError, match="already has LoRA weights: --lora cannot be combined"):
        convert_published(path, small.language_model, tmp_path / "e", lora=small.lora)


def test_lora_in_lightning_file_needs_alpha(tmp_path, small, stored_lora):
    state = {**small.state, **stored_lora}
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    with pytest.raises(
        WeightsError, match="no lora_alpha in its hyper_parameters; give --lora-alpha"
    ):
        convert_published(path, small.language_model, tmp_path / "c")
    hyper_parameters = {
        **files.HYPER_PARAMETERS,
        "lora_alpha": 32,
        "peft_config": "lora_config.json",
    }
    files.write_lightning(path, state, hyper_parameters=hyper_parameters)
    with pytest.raises(WeightsError, match=r"alpha was in 'lora_config\.json'; give --lora-alpha"):
        convert_published(path, small.language_model, tmp_path / "c")
    report = convert_published(path, small.language_model, tmp_path / "c", lora_alpha=16)
    assert report.card["conversion"]["lora"]["scale"] == 4.0
    with pytest.raises(WeightsError, match="no LoRA weights: omit --lora-alpha"):
        convert_published(small.lightning, small.language_model, tmp_path / "d", lora_alpha=16)


def test_base_weights_beside_lora_are_superfluous(tmp_path, small, stored_lora):
    key = f"blip2opt.opt_model.base_model.model.{Q0}.weight"
    state = {**small.state, **stored_lora, key: torch.zeros(32, 32)}
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    with pytest.raises(WeightsError, match=f"superfluous weight {key}"):
        convert_published(path, small.language_model, tmp_path / "c")


def test_card_notes_missing_lora_weights(tmp_path, small):
    hyper_parameters = {**files.HYPER_PARAMETERS, "llm_tune": "lora"}
    path = files.write_lightning(
        tmp_path / "s.ckpt", small.state, hyper_parameters=hyper_parameters
    )
    bare = convert_published(path, small.language_model, tmp_path / "c")
    assert "LoRA weights" in bare.card["conversion"]["lacking"][0]
    whole = convert_published(path, small.language_model, tmp_path / "d", lora=small.lora)
    assert whole.card["conversion"]["lacking"] == []
