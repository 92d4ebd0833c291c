"""Checkpoint folders: strict reading, atomic writing."""

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
    untied_state_dict,
    write_checkpoint,
    write_weights,
)
from moltc_vllm.utils.atomic_files import new_folder


def copy_of(folder, target, change=None):
    """Copy a checkpoint folder and change its weights."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    if change is not None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, target / "model.safetensors")
    return target


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles"])
def test_checkpoint_survives_round_trip(name, tmp_path, request):
    folder = request.getfixturevalue(name)
    model = load_model(folder)
    save_model(tmp_path / "again", model, load_tokenizer(folder), {"note": "a copy"})
    first, second = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    card = json.loads((tmp_path / "again" / "card.json").read_text())
    assert card["note"] == "a copy"
    assert len(card["sha256"]["model.safetensors"]) == 64


def test_weights_have_file_mode_of_other_files(tiny):
    assert len({path.stat().st_mode for path in tiny.iterdir()}) == 1


def test_create_checkpoint_is_deterministic_by_seed(tiny, tmp_path):
    create_checkpoint("tiny", tmp_path / "same")
    create_checkpoint("tiny", tmp_path / "other", seed=1)
    weights = [
        (folder / "model.safetensors").read_bytes()
        for folder in (tiny, tmp_path / "same", tmp_path / "other")
    ]
    assert weights[0] == weights[1] != weights[2]


def test_load_model_names_missing_weight(tiny, tmp_path):
    key = "molecule_encoder.graph_encoder.layers.1.norm.running_var"
    folder = copy_of(tiny, tmp_path / "c", lambda weights: weights.pop(key))
    with pytest.raises(CheckpointError, match=f"missing weight {key}"):
        load_model(folder)


def test_load_model_names_superfluous_weight(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path / "c", lambda w: w.update({"typing.error": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"superfluous weight typing\.error"):
        load_model(folder)


def test_load_model_names_weight_of_another_shape(tiny, tmp_path):
    key = "projectors.shared.bias"
    folder = copy_of(tiny, tmp_path / "c", lambda w: w.update({key: torch.zeros(5)}))
    with pytest.raises(CheckpointError, match=rf"{key} has shape \[5\], expected \[128\]"):
        load_model(folder)


def test_load_model_names_truncated_file(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path / "c")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)


def test_config_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json does not hold a JSON object"):
        load_config(tmp_path)


def test_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(CheckpointError, match="model_type 'opt', expected 'moltc'"):
        load_config(tmp_path)
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        create_checkpoint("tiny", tmp_path)
    with pytest.raises(CheckpointError, match="unknown preset 'huge'"):
        create_checkpoint("huge", tmp_path / "new")


def test_prompt_style_must_be_known_and_equal_in_config_and_card(tiny, tmp_path):
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
    with pytest.raises(CheckpointError, match=r"card.json does not hold a JSON object"):
        load_config(folder)


def test_failed_write_leaves_no_folder(tiny, tmp_path):
    def broken():
        yield "a", torch.zeros(3)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_checkpoint(tmp_path / "c", load_config(tiny), load_tokenizer(tiny), broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_no_parents_and_no_extra_files(tiny, tmp_path):
    (tmp_path / "old").mkdir()

    def extra(folder):
        (folder / "adapters").mkdir()
        raise RuntimeError("disk on fire")

    folder = tmp_path / "old" / "a" / "b" / "c"
    with pytest.raises(RuntimeError, match="on fire"):
        write_checkpoint(folder, load_config(tiny), load_tokenizer(tiny), [], {}, extra=extra)
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


def test_full_disk_is_checkpoint_error(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("moltc_vllm.models.checkpoint_weights.save_file", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left"):
        write_weights(tmp_path, [("a", torch.zeros(1))])


def test_extra_files_appear_with_folder(tiny, tmp_path):
    seen = []

    def extra(folder):
        seen.append(folder)
        assert not (tmp_path / "c").exists()
        (folder / "adapters" / "ddi").mkdir(parents=True)
        save_file({"a": torch.ones(2)}, folder / "adapters" / "ddi" / "adapter_model.safetensors")

    model = load_model(tiny)
    weights = untied_state_dict(model).items()
    write_checkpoint(
        tmp_path / "c", model.config, load_tokenizer(tiny), weights, {"a": 1}, extra=extra
    )
    assert seen[0].parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    card = json.loads((tmp_path / "c" / "card.json").read_text())
    assert card["a"] == 1
    assert "adapters/ddi/adapter_model.safetensors" in card["sha256"]


def test_new_folder_replaces_empty_folder_only(tmp_path):
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


def test_tensors_that_share_memory_are_stored_separately(tmp_path):
    base = torch.arange(6.0)
    write_weights(tmp_path, [("a", base), ("b", base), ("c", base[2:5]), ("d", base.view(2, 3))])
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["a"], stored["b"])
    assert stored["c"].tolist() == [2, 3, 4]
    assert stored["d"].shape == (2, 3)


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles"])
def test_expected_weights_are_stored_weights(name, request):
    folder = request.getfixturevalue(name)
    stored = {key: t.shape for key, t in load_file(folder / "model.safetensors").items()}
    assert expected_weights(load_config(folder)) == stored


def test_prompt_style_determines_chat_template_and_stop_token(tiny, tmp_path):
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    config = model.config
    plain = json.loads((tiny / "generation_config.json").read_text())
    assert plain["eos_token_id"] == tokenizer.eos_token_id
    config.prompt_style = "moltc-2024"
    write_checkpoint(tmp_path / "c", config, tokenizer, untied_state_dict(model).items(), {})
    written = load_tokenizer(tmp_path / "c")
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert written.chat_template == config.style.chat_template != load_tokenizer(tiny).chat_template
    assert written.decode([generation["eos_token_id"]]) == "\n"


def test_sharded_checkpoint_is_one_model(tiny, tmp_path):
    model = load_model(tiny)
    write_checkpoint(
        tmp_path / "c",
        model.config,
        load_tokenizer(tiny),
        untied_state_dict(model).items(),
        {},
        shard_bytes=300_000,
    )
    index = json.loads((tmp_path / "c" / INDEX_FILE).read_text())
    assert len(set(index["weight_map"].values())) > 2
    again = load_model(tmp_path / "c")
    for key, tensor in untied_state_dict(model).items():
        assert torch.equal(tensor, again.state_dict()[key])
    (tmp_path / "c" / index["weight_map"]["projectors.shared.bias"]).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load_model(tmp_path / "c")
