"""Language model of a converted checkpoint, and the placeholder's row of its embeddings."""

import json
import shutil

import pytest
import torch

from moltc_vllm.models import load_config, load_model
from moltc_vllm.models.conversion.convert import convert_published
from moltc_vllm.models.weights import WeightsError
from tests.models.conversion import published_files as files
from tests.models.conversion.helpers import (
    error_details,
    read_weights,
)

# The language model


def test_tuned_language_model_is_read_from_lightning_file(tmp_path, small):
    state = files.tuned(small.state, small.language_model)
    name = "model.decoder.layers.0.fc2.weight"
    state[f"blip2opt.opt_model.{name}"] = torch.ones(files.HIDDEN, 64)
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    folder = tmp_path / "lm"  # configuration and tokenizer are enough
    shutil.copytree(small.language_model, folder)
    (folder / "pytorch_model.bin").unlink()
    report = convert_published(path, folder, tmp_path / "c")
    weights = read_weights(tmp_path / "c")
    assert torch.equal(weights[f"language_model.{name}"], torch.ones(files.HIDDEN, 64))
    assert weights["language_model.model.decoder.embed_tokens.weight"][-1].eq(0.25).all()
    assert report.config.mask_molecule_token is False
    assert report.card["conversion"]["language_model"] == "s.ckpt"
    assert len(report.card["published"]["inputs"]) == 3
    assert load_config(tmp_path / "c").mask_molecule_token is False

    row = tmp_path / "row.pt"
    torch.save(torch.zeros(files.HIDDEN), row)
    for option in ({"molecule_row": row}, {"lora": small.lora}):
        with pytest.raises(
            WeightsError, match=r"already has the placeholder|already has a fully tuned"
        ):
            convert_published(path, folder, tmp_path / "d", **option)


def test_tuned_language_model_must_fit_its_configuration(tmp_path, small):
    whole = files.tuned(small.state, small.language_model)
    prefix = "blip2opt.opt_model."
    embeddings = f"{prefix}model.decoder.embed_tokens.weight"
    state = {**whole, f"{prefix}model.decoder.layers.0.fc1.bias": torch.zeros(64)}
    del state[f"{prefix}model.decoder.layers.1.fc1.weight"]
    assert error_details(tmp_path, small, state, message="superfluous weight .*and 1 more") == (
        f"superfluous weight {prefix}model.decoder.layers.0.fc1.bias",
        f"missing weight {prefix}model.decoder.layers.1.fc1.weight",
    )
    # A tuned model includes the row of <mol>.
    rows = whole[embeddings][:-1]
    state = {**whole, embeddings: rows, f"{prefix}lm_head.weight": rows}
    error_details(
        tmp_path, small, state, message=rf"{embeddings} has shape \[\d+, 32\], expected \[\d+, 32\]"
    )
    state = {**whole, f"{prefix}lm_head.weight": whole[embeddings] + 1}
    error_details(
        tmp_path, small, state, message="lm_head.weight differs from model.decoder.embed_tokens"
    )


def test_card_notes_missing_tuned_language_model(tmp_path, small):
    path = files.write_lightning(
        tmp_path / "s.ckpt", small.state, hyper_parameters={"llm_tune": "full"}
    )
    report = convert_published(path, small.language_model, tmp_path / "c")
    assert "language model" in report.card["conversion"]["lacking"][0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_convert_accepts_other_causal_language_models(tmp_path, small, kind):
    folder = files.write_language_model(tmp_path / "lm", kind)
    report = convert_published(small.lightning, folder, tmp_path / "c")
    assert report.config.text_config.model_type == kind
    stored = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights = read_weights(tmp_path / "c")
    for key, tensor in stored.items():
        assert torch.equal(weights[f"language_model.{key}"][: len(tensor)], tensor)
    load_model(tmp_path / "c")


def test_convert_keeps_every_dtype(tmp_path, small):
    state = {
        key: tensor.half() if "ln_graph" in key else tensor for key, tensor in small.state.items()
    }
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    folder = files.write_language_model(tmp_path / "lm", dtype=torch.bfloat16)
    convert_published(path, folder, tmp_path / "c", lora=small.lora)
    for key, tensor in read_weights(tmp_path / "c").items():
        if "graph_encoder.norm" in key:
            assert tensor.dtype == torch.float16
        elif key.startswith("language_model."):
            assert tensor.dtype == torch.bfloat16
        else:
            assert tensor.dtype in (torch.float32, torch.int64)


def test_convert_rejects_invalid_language_model_folder(tmp_path, small):
    def folder_error_details(folder, reason):
        with pytest.raises(WeightsError, match=reason) as caught:
            convert_published(small.lightning, folder, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        return caught.value.details

    def copy(name):
        shutil.copytree(small.language_model, tmp_path / name)
        return tmp_path / name

    folder_error_details(tmp_path / "nowhere", "is not a folder")
    folder = copy("a")
    (folder / "tokenizer.json").write_text("{}")
    folder_error_details(folder, "tokenizer.json: ")
    (folder / "tokenizer.json").unlink()
    folder_error_details(folder, "has no tokenizer.json")
    folder = copy("b")
    (folder / "config.json").write_text('{"model_type": "vit"}')
    folder_error_details(folder, "no causal language model of type 'vit'")
    (folder / "config.json").write_text('{"hidden_size": 3}')
    folder_error_details(folder, "config.json: ")
    (folder / "config.json").unlink()
    folder_error_details(folder, "has no config.json")
    folder = copy("c")
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    folder_error_details(folder, r"pytorch_model\.bin is truncated or damaged")
    (folder / "pytorch_model.bin").unlink()
    folder_error_details(folder, "has no model.safetensors or pytorch_model.bin")
    (folder / "model.safetensors").write_bytes(data[:100])
    folder_error_details(folder, r"model\.safetensors cannot be read")
    folder = copy("d")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del weights["model.decoder.layers.0.fc1.weight"], weights["model.decoder.layers.1.fc1.weight"]
    torch.save({**weights, "a": torch.zeros(1), "b": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert len(folder_error_details(folder, "superfluous weight a, and 3 more")) == 4


def test_convert_does_not_run_code_of_language_model_folder(tmp_path, small):
    folder, marker = tmp_path / "lm", tmp_path / "code-ran"
    shutil.copytree(small.language_model, folder)
    raw = json.loads((folder / "config.json").read_text())
    raw.update(model_type="mine", auto_map={"AutoConfig": "code.Config"})
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(WeightsError, match=r"config\.json: "):
        convert_published(small.lightning, folder, tmp_path / "out")
    assert not marker.exists()


# The placeholder's row


def test_molecule_row_is_mean_and_masked_unless_given(tmp_path, small, converted):
    key = "language_model.model.decoder.embed_tokens.weight"
    mean = read_weights(converted)[key]
    torch.testing.assert_close(mean[-1], mean[:-1].mean(0))
    assert load_config(converted).mask_molecule_token is True
    row = torch.randn(files.HIDDEN)
    torch.save(row, tmp_path / "mol_row.pt")
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", molecule_row=tmp_path / "mol_row.pt"
    )
    rows = read_weights(tmp_path / "c")[key]
    assert torch.equal(rows[-1], row)
    assert torch.equal(rows[:-1], mean[:-1])
    assert load_config(tmp_path / "c").mask_molecule_token is False
    assert report.config.molecule_token_id == len(rows) - 1
    assert "mol_row.pt" in report.card["conversion"]["molecule_row"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(31), r"the row has shape \[31\], expected \[32\]"),
        (torch.zeros(1, 32), r"the row has shape \[1, 32\]"),
        (torch.full((32,), float("nan")), "holds NaN"),
        ({"row": torch.zeros(32)}, "is a dict, expected a tensor"),
    ],
)
def test_convert_rejects_invalid_molecule_row(tmp_path, small, content, reason):
    torch.save(content, tmp_path / "row.pt")
    error_details(tmp_path, small, message=reason, molecule_row=tmp_path / "row.pt")


def test_molecule_row_requires_tied_embeddings(tmp_path, small):
    folder = files.write_language_model(tmp_path / "lm", "llama")
    torch.save(torch.zeros(32), tmp_path / "row.pt")
    with pytest.raises(WeightsError, match="has a separate output layer"):
        convert_published(
            small.lightning, folder, tmp_path / "out", molecule_row=tmp_path / "row.pt"
        )
