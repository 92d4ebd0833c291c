"""Pretrained language models as part of a checkpoint."""

import json

import pytest
import torch
from safetensors.torch import save_file

from moltc_vllm.models import create_checkpoint, load_config, load_model, load_tokenizer
from moltc_vllm.models.language_model import (
    LanguageModelError,
    language_layout,
    language_model_weights,
    load_language_config,
)
from tests.paths import reference_dir


def test_pretrained_language_model_keeps_weights_and_tokenizer(tmp_path):
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


def test_large_random_language_model_is_refused(tmp_path):
    with pytest.raises(LanguageModelError, match=r"30\.\d billion random weights"):
        create_checkpoint("galactica-30b", tmp_path / "c")
    with pytest.raises(LanguageModelError, match=r"6\.\d billion random weights"):
        create_checkpoint("galactica-6.7b", tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_broken_language_model_is_refused_with_its_defect(tmp_path, tiny):
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


def test_sharded_language_model_is_one_model(tmp_path):
    source = reference_dir() / "galactica-1.3b"
    stored = torch.load(source / "pytorch_model.bin", weights_only=True)
    stored.pop("lm_head.weight")
    names = list(stored)
    config = load_language_config(source, 2001)
    assert config.name_or_path == ""  # paths of this machine are not written into checkpoints
    weight_map = {}
    for shard, keys in enumerate((names[:10], names[10:])):
        file = f"model-{shard}.safetensors"
        save_file({key: stored[key] for key in keys}, tmp_path / file)
        weight_map.update(dict.fromkeys(keys, file))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    weights = dict(language_model_weights(tmp_path, config))
    assert weights.keys() == stored.keys()
    assert all(torch.equal(weights[key][: len(tensor)], tensor) for key, tensor in stored.items())
