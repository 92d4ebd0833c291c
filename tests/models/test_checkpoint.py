"""The checkpoint folder: strict in, strict out."""

import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moltc_vllm.models import (
    CheckpointError,
    create_checkpoint,
    load_config,
    load_model,
    load_tokenizer,
    save_model,
)
from moltc_vllm.models.checkpoint import (
    INDEX_FILE,
    expected_weights,
    state_of,
    write_checkpoint,
    write_weights,
)
from moltc_vllm.models.language_model import (
    LanguageModelError,
    language_layout,
    language_model_weights,
    load_language_config,
)
from moltc_vllm.utils.atomic_files import new_folder
from tests.paths import reference_dir


def copy_of(folder, target, change=None):
    """A copy of a checkpoint with changed weights."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    if change is not None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, target / "model.safetensors")
    return target


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles"])
def test_round_trip(name, tmp_path, request):
    folder = request.getfixturevalue(name)
    model = load_model(folder)
    save_model(tmp_path / "again", model, load_tokenizer(folder), {"note": "a copy"})
    first, second = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    card = json.loads((tmp_path / "again" / "card.json").read_text())
    assert card["note"] == "a copy"
    assert len(card["sha256"]["model.safetensors"]) == 64


def test_who_may_read_the_rest_may_read_the_weights(tiny):
    assert len({path.stat().st_mode for path in tiny.iterdir()}) == 1


def test_same_seed_same_weights(tiny, tmp_path):
    create_checkpoint("tiny", tmp_path / "same")
    create_checkpoint("tiny", tmp_path / "other", seed=1)
    weights = [
        (folder / "model.safetensors").read_bytes()
        for folder in (tiny, tmp_path / "same", tmp_path / "other")
    ]
    assert weights[0] == weights[1] != weights[2]


def test_a_missing_weight_is_named(tiny, tmp_path):
    key = "molecule_encoder.graph_encoder.layers.1.norm.running_var"
    folder = copy_of(tiny, tmp_path / "c", lambda weights: weights.pop(key))
    with pytest.raises(CheckpointError, match=f"missing weight {key}"):
        load_model(folder)


def test_a_superfluous_weight_is_named(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path / "c", lambda w: w.update({"typing.error": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"superfluous weight typing\.error"):
        load_model(folder)


def test_another_shape_is_named(tiny, tmp_path):
    key = "projectors.shared.bias"
    folder = copy_of(tiny, tmp_path / "c", lambda w: w.update({key: torch.zeros(5)}))
    with pytest.raises(CheckpointError, match=rf"{key} has shape \[5\], expected \[128\]"):
        load_model(folder)


def test_a_truncated_file_is_named(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path / "c")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(CheckpointError, match="model_type 'opt', expected 'moltc'"):
        load_config(tmp_path)
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        create_checkpoint("tiny", tmp_path)
    with pytest.raises(CheckpointError, match="unknown preset 'huge'"):
        create_checkpoint("huge", tmp_path / "new")


def test_a_prompt_style_is_known_and_the_same_in_both_files(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path / "c")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "prompt_style": "moltc-2024"}))
    with pytest.raises(CheckpointError, match=r"'moltc-2024', config.json 'moltc': change both"):
        load_config(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "prompt_style": "moltc-2024"}))
    assert load_config(folder).style.as_written
    (folder / "config.json").write_text(json.dumps({**config, "prompt_style": "moltc-1"}))
    with pytest.raises(CheckpointError, match=r"config.json: unknown prompt style 'moltc-1'"):
        load_config(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "card.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"card.json is not a JSON object"):
        load_config(folder)


def test_a_failed_write_leaves_nothing(tiny, tmp_path):
    def broken():
        yield "a", torch.zeros(3)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_checkpoint(tmp_path / "c", load_config(tiny), load_tokenizer(tiny), broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_parents_and_no_extra_files(tiny, tmp_path):
    (tmp_path / "old").mkdir()

    def extra(folder):
        (folder / "adapters").mkdir()
        raise RuntimeError("disk on fire")

    folder = tmp_path / "old" / "a" / "b" / "c"
    with pytest.raises(RuntimeError, match="on fire"):
        write_checkpoint(folder, load_config(tiny), load_tokenizer(tiny), [], {}, extra=extra)
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


def test_a_disk_that_is_full_is_a_reason(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("moltc_vllm.models.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left"):
        write_weights(tmp_path, [("a", torch.zeros(1))])


def test_extra_files_appear_with_the_folder(tiny, tmp_path):
    seen = []

    def extra(folder):
        seen.append(folder)
        assert not (tmp_path / "c").exists()
        (folder / "adapters" / "ddi").mkdir(parents=True)
        save_file({"a": torch.ones(2)}, folder / "adapters" / "ddi" / "adapter_model.safetensors")

    model = load_model(tiny)
    weights = state_of(model).items()
    write_checkpoint(
        tmp_path / "c", model.config, load_tokenizer(tiny), weights, {"a": 1}, extra=extra
    )
    assert seen[0].parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    card = json.loads((tmp_path / "c" / "card.json").read_text())
    assert card["a"] == 1
    assert "adapters/ddi/adapter_model.safetensors" in card["sha256"]


def test_a_new_folder_replaces_an_empty_one_only(tmp_path):
    (tmp_path / "c").mkdir()
    with new_folder(tmp_path / "c", CheckpointError) as folder:
        (folder / "x").write_text("x")
        assert list((tmp_path / "c").iterdir()) == []
    assert (tmp_path / "c" / "x").read_text() == "x"
    with (
        pytest.raises(CheckpointError, match="not empty"),
        new_folder(tmp_path / "c", CheckpointError),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_two_names_of_one_tensor_are_two_weights(tmp_path):
    whole = torch.arange(6.0)
    write_weights(
        tmp_path, [("a", whole), ("b", whole), ("c", whole[2:5]), ("d", whole.view(2, 3))]
    )
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["a"], stored["b"])
    assert stored["c"].tolist() == [2, 3, 4]
    assert stored["d"].shape == (2, 3)


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles"])
def test_the_expected_weights_are_those_of_a_checkpoint(name, request):
    folder = request.getfixturevalue(name)
    stored = {key: t.shape for key, t in load_file(folder / "model.safetensors").items()}
    assert expected_weights(load_config(folder)) == stored


def test_the_prompt_style_decides_template_and_stop_token(tiny, tmp_path):
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    config = model.config
    plain = json.loads((tiny / "generation_config.json").read_text())
    assert plain["eos_token_id"] == tokenizer.eos_token_id
    config.prompt_style = "moltc-2024"
    write_checkpoint(tmp_path / "c", config, tokenizer, state_of(model).items(), {})
    written = load_tokenizer(tmp_path / "c")
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert written.chat_template == config.style.chat_template != load_tokenizer(tiny).chat_template
    assert written.decode([generation["eos_token_id"]]) == "\n"


def test_several_shards_are_one_model(tiny, tmp_path):
    model = load_model(tiny)
    write_checkpoint(
        tmp_path / "c",
        model.config,
        load_tokenizer(tiny),
        state_of(model).items(),
        {},
        shard_bytes=300_000,
    )
    index = json.loads((tmp_path / "c" / INDEX_FILE).read_text())
    assert len(set(index["weight_map"].values())) > 2
    again = load_model(tmp_path / "c")
    for key, tensor in state_of(model).items():
        assert torch.equal(tensor, again.state_dict()[key])
    (tmp_path / "c" / index["weight_map"]["projectors.shared.bias"]).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load_model(tmp_path / "c")


def test_a_pretrained_language_model_keeps_its_weights_and_tokenizer(tmp_path):
    source = reference_dir() / "galactica-1.3b"  # Galactica's layout, small
    config = create_checkpoint("tiny", tmp_path / "c", language_model=source)
    stored = torch.load(source / "pytorch_model.bin", weights_only=True)
    model = load_model(tmp_path / "c")
    rows = stored["model.decoder.embed_tokens.weight"].shape[0]
    assert config.molecule_token_id == rows == config.text_config.vocab_size - 1
    ours = model.state_dict()
    assert {f"language_model.{key}" for key in stored} <= ours.keys()
    for key, tensor in stored.items():
        assert torch.equal(ours[f"language_model.{key}"][: len(tensor)], tensor)
    tokenizer = load_tokenizer(tmp_path / "c")
    assert tokenizer.convert_tokens_to_ids("<mol>") == rows


def test_large_random_models_are_refused_and_the_published_sizes_are_right(tmp_path):
    with pytest.raises(LanguageModelError, match=r"30\.\d billion random weights"):
        create_checkpoint("galactica-30b", tmp_path / "c")
    with pytest.raises(LanguageModelError, match=r"6\.\d billion random weights"):
        create_checkpoint("galactica-6.7b", tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_broken_language_models_are_named(tmp_path, tiny):
    text = load_config(tiny).text_config
    with pytest.raises(LanguageModelError, match="has no model"):
        list(language_model_weights(tmp_path, text))
    save_file({"nonsense": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(LanguageModelError, match="superfluous weight nonsense") as caught:
        list(language_model_weights(tmp_path, text))
    missing = [line for line in caught.value.details if line.startswith("missing weight")]
    assert len(missing) == len(language_layout(text).shapes)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": []}')
    with pytest.raises(LanguageModelError, match="is not an index of weights"):
        list(language_model_weights(tmp_path, text))


def test_a_sharded_language_model_is_one(tmp_path):
    source = reference_dir() / "galactica-1.3b"
    stored = torch.load(source / "pytorch_model.bin", weights_only=True)
    stored.pop("lm_head.weight")
    names = list(stored)
    config = load_language_config(source, 2001)
    assert config.name_or_path == ""  # folders of this machine are not written into checkpoints
    weight_map = {}
    for number, part in enumerate((names[:10], names[10:])):
        file = f"model-{number}.safetensors"
        save_file({name: stored[name] for name in part}, tmp_path / file)
        weight_map.update(dict.fromkeys(part, file))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    again = dict(language_model_weights(tmp_path, config))
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[key][: len(tensor)], tensor) for key, tensor in stored.items())
