"""`AdapterSwitcher`: one adapter at a time, without changing the base weights."""

import pytest
import torch
from safetensors.torch import load_file

from moltc_vllm.models import create_checkpoint, load_model
from moltc_vllm.models.adapter_switcher import AdapterSwitcher
from moltc_vllm.models.adapters import load_adapters
from tests.adapters import write_adapter


@pytest.mark.parametrize("preset", ["tiny", "tiny-llama"])
@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 12},
        {"lora_alpha": 12, "use_rslora": True},
        {"alpha_pattern": {"v_proj": 8}, "rank_pattern": {"layers.0.self_attn.v_proj": 4}},
    ],
)
def test_active_adapter_equals_merged_weights(tmp_path, preset, settings):
    """The definition of LoRA: scale * B A is added to the weight."""
    create_checkpoint(preset, tmp_path / "c")
    write_adapter(tmp_path / "c", "ddi", ["q_proj", "v_proj"], rank=4, **settings)
    tensors = load_file(tmp_path / "c" / "adapters" / "ddi" / "adapter_model.safetensors")
    model, merged = (load_model(tmp_path / "c").language_model for _ in range(2))
    for key in tensors:
        if ".lora_A." not in key:
            continue
        alpha = settings.get("lora_alpha", 4)
        if "v_proj" in key and "alpha_pattern" in settings:
            alpha = 8
        scale = alpha / (2 if "use_rslora" in settings else 4)
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        change = tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
        merged.get_parameter(f"{name}.weight").data += scale * change
    switcher = AdapterSwitcher(model, load_adapters(tmp_path / "c"))
    ids = torch.arange(5, 45)[None]
    with torch.inference_mode():
        base = model(ids).logits
        with switcher.activate("ddi"):
            got = model(ids).logits
        assert torch.equal(model(ids).logits, base)
        with switcher.activate("solvation"):  # no such adapter
            assert torch.equal(model(ids).logits, base)
        expected = merged(ids).logits
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (got - base).abs().max() > 0.1 * base.abs().max()


def test_adapter_is_inactive_after_error(adapted):
    model = load_model(adapted).language_model
    switcher = AdapterSwitcher(model, load_adapters(adapted))
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        base = model(ids).logits
        with pytest.raises(ZeroDivisionError), switcher.activate("ddi"):
            raise ZeroDivisionError
        assert torch.equal(model(ids).logits, base)
