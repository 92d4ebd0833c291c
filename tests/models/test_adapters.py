"""Adapters of a checkpoint folder: read whole, refused with their cause, used one at a time."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from moltc_vllm.models import Prompt, create_checkpoint, load_model
from moltc_vllm.models.adapter_switcher import AdapterSwitcher
from moltc_vllm.models.adapters import AdapterError, load_adapters
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import Limits, get_task
from moltc_vllm.tasks.engine import Pair
from tests.adapters import write_adapter
from tests.molecules import DRUGS

Q0 = "base_model.model.model.decoder.layers.0.self_attn.q_proj"
A, B = list(DRUGS.values())[:2]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "adapted"
    create_checkpoint("tiny", folder, projector_sharing="task_role")
    write_adapter(folder, "ddi", ["q_proj", "v_proj"], rank=4, seed=1)
    write_adapter(folder, "solvation", ["fc1", "out_proj"], rank=8, lora_alpha=4, seed=2)
    return folder


@pytest.fixture
def broken(adapted, tmp_path):
    """A copy to break: ``ddi`` alone."""
    folder = tmp_path / "broken"
    shutil.copytree(adapted, folder)
    shutil.rmtree(folder / "adapters" / "solvation")
    return folder


def change_config(folder, **changes):
    path = folder / "adapters" / "ddi" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder, change):
    path = folder / "adapters" / "ddi" / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)


def test_they_are_found_by_name(adapted):
    (adapted / "adapters" / ".ddi.partial").mkdir(exist_ok=True)
    (adapted / "adapters" / "README.md").write_text("not an adapter")
    ddi, solvation = load_adapters(adapted)
    assert (ddi.name, ddi.rank, len(ddi.layers)) == ("ddi", 4, 4)
    assert (solvation.name, solvation.rank, len(solvation.layers)) == ("solvation", 8, 4)
    layer = solvation.layers["model.decoder.layers.1.fc1"]
    assert (layer.a.shape, layer.b.shape, layer.scale) == ((8, 128), (256, 8), 0.5)


def test_a_folder_without_adapters_has_none(tiny, tmp_path):
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
def test_a_wrong_configuration_is_named(broken, changes, cause):
    change_config(broken, **changes)
    refused(broken, cause)


def refused(folder, cause):
    with pytest.raises(AdapterError) as error:
        load_adapters(folder)
    message = str(error.value)
    assert message.startswith("adapter 'ddi': ")
    assert cause in message
    assert "\n" not in message


@pytest.mark.parametrize("half", ["A", "B"])
def test_wrong_weights_are_named(broken, half):
    key = f"{Q0}.lora_{half}.weight"
    kept = broken / "adapters" / "ddi" / "adapter_model.safetensors"
    before = kept.read_bytes()

    def try_with(change, cause):
        kept.write_bytes(before)
        change_weights(broken, change)
        refused(broken, cause)

    try_with(lambda t: t.pop(key), f"layers.0.self_attn.q_proj has no lora_{half}")
    try_with(lambda t: t.update({key: t[key].T.contiguous()}), f"q_proj.lora_{half} has shape")
    try_with(lambda t: t.update({key: t[key][..., None]}), f"q_proj.lora_{half} has shape")
    for wrong in (math.nan, math.inf):
        try_with(lambda t, wrong=wrong: t[key][0].fill_(wrong), "holds NaN or infinite values")
    try_with(lambda t: t.update({key: t[key].int()}), "is torch.int32, not floating point")
    other = key.replace("layers.0", "layers.2")
    try_with(lambda t: t.update({other: t[key]}), "no linear layer model.decoder.layers.2")
    other = "base_model.model.lm_head.lora_A.weight"
    try_with(lambda t: t.update({other: t[key]}), "no linear layer lm_head")
    other = "base_model.model.model.decoder.embed_tokens.lora_embedding_A"
    try_with(lambda t: t.update({other: t[key]}), "is not a LoRA weight of a linear layer")
    try_with(lambda t: t.clear(), "adapter_model.safetensors is empty")
    layer = [f"{Q0}.lora_{one}.weight" for one in "AB"]
    try_with(
        lambda t: [t.pop(one) for one in layer],
        "no weights for model.decoder.layers.0.self_attn.q_proj",
    )


def test_a_layer_that_was_left_out_on_purpose_needs_no_weights(broken):
    change_config(broken, layers_to_transform=0)
    change_weights(broken, lambda t: [t.pop(key) for key in list(t) if "layers.1" in key])
    (adapter,) = load_adapters(broken)
    assert len(adapter.layers) == 2


def test_wrong_files_are_named(broken):
    folder = broken / "adapters" / "ddi"
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for content, cause in ((whole[:-9], "cannot be read"), (b"", "cannot be read")):
        weights.write_bytes(content)
        refused(broken, f"adapter_model.safetensors {cause}")
    weights.rename(folder / "adapter_model.bin")
    refused(broken, "adapter_model.safetensors is missing")
    config = folder / "adapter_config.json"
    for content, cause in (("{", "is not JSON"), ("[]", "is not an object")):
        config.write_text(content)
        refused(broken, f"adapter_config.json {cause}")
    config.unlink()
    refused(broken, "adapter_config.json is missing")


@pytest.mark.parametrize("prefix", ["", "language_model.", "base_model.model.language_model."])
def test_other_prefixes_name_the_same_layers(broken, prefix):
    expected = load_adapters(broken)[0].layers

    def rename(tensors):
        for key in list(tensors):
            tensors[prefix + key.removeprefix("base_model.model.")] = tensors.pop(key)

    change_weights(broken, rename)
    layers = load_adapters(broken)[0].layers
    assert layers.keys() == expected.keys()
    assert all(torch.equal(layers[name].a, expected[name].a) for name in layers)


@pytest.mark.parametrize("preset", ["tiny", "tiny-llama"])
@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 12},
        {"lora_alpha": 12, "use_rslora": True},
        {"alpha_pattern": {"v_proj": 8}, "rank_pattern": {"layers.0.self_attn.v_proj": 4}},
    ],
)
def test_an_adapter_is_what_it_would_be_merged(tmp_path, preset, settings):
    """The definition: scale * B A is added to the weight."""
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
    adapters = AdapterSwitcher(model, load_adapters(tmp_path / "c"))
    ids = torch.arange(5, 45)[None]
    with torch.inference_mode():
        base = model(ids).logits
        with adapters.using("ddi"):
            got = model(ids).logits
        assert torch.equal(model(ids).logits, base)
        with adapters.using("solvation"):  # there is none
            assert torch.equal(model(ids).logits, base)
        expected = merged(ids).logits
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (got - base).abs().max() > 0.1 * base.abs().max()


def test_weights_are_as_they_were_after_an_error(adapted):
    model = load_model(adapted).language_model
    adapters = AdapterSwitcher(model, load_adapters(adapted))
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        base = model(ids).logits
        with pytest.raises(ZeroDivisionError), adapters.using("ddi"):
            raise ZeroDivisionError
        assert torch.equal(model(ids).logits, base)


def test_the_torch_engine_uses_the_adapter_of_the_task(adapted):
    engine = TorchEngine(adapted, constrained=False)
    without = TorchEngine(adapted, constrained=False, adapters=False)

    def texts(one, task):
        return [answer.text for _, answer in one.submit(task, [Pair(0, (A, B)), Pair(1, (B, A))])]

    expected = {task: texts(engine, task) for task in ("ddi", "solvation", "emission")}
    assert texts(without, "emission") == expected["emission"]
    assert texts(without, "ddi") != expected["ddi"]
    assert texts(without, "solvation") != expected["solvation"]
    # Two tasks at once: each pair is answered with its own task's adapter.
    engine.batch = 1
    pairs = [Pair(0, (A, B)), Pair(1, (B, A))]
    running = {task: engine.submit(task, iter(pairs)) for task in expected}
    for place in range(2):
        for task, answers in running.items():
            assert next(answers)[1].text == expected[task][place]


def test_beams_use_the_adapter(adapted):
    task = get_task("ddi")
    prompt = Prompt(task.prompt((A, B)), [A, B], "ddi")
    found = [
        TorchEngine(adapted, beams=3, adapters=use).generate(task, [prompt], Limits(8))
        for use in (True, False)
    ]
    assert found[0] != found[1]


def test_a_bad_adapter_stops_the_torch_engine(broken):
    change_config(broken, use_dora=True)
    with pytest.raises(AdapterError, match="adapter 'ddi': use_dora"):
        TorchEngine(broken)
    TorchEngine(broken, adapters=False)
