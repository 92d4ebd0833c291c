"""The checkpoint folder: strict in, strict out."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from moltc_vllm.models import (
    CheckpointError,
    create_checkpoint,
    load_config,
    load_model,
    load_tokenizer,
    save_model,
)
from moltc_vllm.models.checkpoint import INDEX_FILE, state_of, write_checkpoint
from moltc_vllm.models.language_model import LanguageModelError, language_model_weights
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


def test_a_failed_write_leaves_nothing(tiny, tmp_path):
    def broken():
        yield "a", torch.zeros(3)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_checkpoint(tmp_path / "c", load_config(tiny), load_tokenizer(tiny), broken(), {})
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(LanguageModelError, match="superfluous weight nonsense"):
        list(language_model_weights(tmp_path, text))
