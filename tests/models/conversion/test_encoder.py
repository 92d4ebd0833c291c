"""Molecule encoder of a conversion: names, shapes, filled-in weights and stage 1."""

import json
import shutil

import pytest
import torch

from moltc_vllm.models.conversion.convert import convert_published
from moltc_vllm.models.weights import WeightsError
from tests.models.conversion import published_files as files
from tests.models.conversion.helpers import (
    BATCH_NORM,
    GRAPH,
    STATISTICS,
    error_details,
    read_weights,
    without,
)


def test_convert_lists_all_superfluous_and_missing_weights(tmp_path, small):
    state = dict(small.state)
    missing = [
        "blip2opt.ln_graph.bias",
        "blip2opt.opt_proj.bias",
        "blip2opt.Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
    ]
    for key in missing:
        del state[key]
    superfluous = [
        "optimizer.step",
        "blip2opt.llm_proj.weight",
        "blip2opt.graph_encoder.gnns.1.mlp.4.weight",
        "blip2opt.Qformer.cls.predictions.bias",
        "blip2opt.Qformer.bert.encoder.layer.0.intermediate.dense.weight",
        "blip2opt.opt_proj.weight_g",
        "blip2qformer.temp",
        "blip2opt.graph_encoder.gnns.12345678.mlp.0.weight",
    ]
    state.update({key: torch.zeros(2) for key in superfluous})
    details = error_details(tmp_path, small, state, message=r"superfluous weight .*, and 10 more")
    assert sorted(details) == sorted(
        [f"superfluous weight {key}" for key in superfluous]
        + [f"missing weight {key}" for key in missing]
    )


def test_convert_lists_all_shape_mismatches(tmp_path, small):
    wrong = {
        "blip2opt.graph_encoder.x_embedding1.weight": (119, 16),
        "blip2opt.graph_encoder.batch_norms.0.running_mean": (17,),
        "blip2opt.Qformer.bert.encoder.layer.1.output_query.dense.weight": (128, 97),
        "blip2opt.opt_proj.weight": (48, 128),
    }
    state = {**small.state, **{key: torch.zeros(shape) for key, shape in wrong.items()}}
    details = error_details(tmp_path, small, state, message="has shape .*, and 3 more")
    shapes = {key: list(small.state[key].shape) for key in wrong}
    assert sorted(details) == sorted(
        f"{key} has shape {list(shape)}, expected {shapes[key]}" for key, shape in wrong.items()
    )


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("query_tokens", (4, 128)),
        ("query_tokens", (2, 4, 128)),
        ("query_tokens", (1, 4, 0)),
        ("graph_encoder.x_embedding1.weight", (120,)),
    ],
)
def test_convert_rejects_wrong_number_of_dimensions(tmp_path, small, key, shape):
    state = {**small.state, f"blip2opt.{key}": torch.zeros(shape)}
    error_details(tmp_path, small, state, message=f"blip2opt.{key} has shape")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "key", ["opt_proj.bias", "query_tokens", "graph_encoder.gnns.1.mlp.0.weight"]
)
def test_convert_rejects_weights_that_are_not_finite(tmp_path, small, key, value):
    state = {key: tensor.clone() for key, tensor in small.state.items()}
    state[f"blip2opt.{key}"].flatten()[-1] = value
    state[f"blip2opt.{key}"].view(-1)[-1] = value
    error_details(
        tmp_path, small, state, message=rf"stage2\.ckpt: blip2opt\.{key} holds NaN or infinite"
    )


def test_convert_rejects_nan_in_language_model(tmp_path, small):
    folder = tmp_path / "lm"
    shutil.copytree(small.language_model, folder)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["model.decoder.layers.1.fc1.weight"][3, 3] = float("nan")
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=r"pytorch_model\.bin: model.decoder.layers.1.fc1.weight holds"
    ):
        convert_published(small.lightning, folder, tmp_path / "deep" / "er" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"lm"}


def test_convert_rejects_integer_weights(tmp_path, small):
    quantized = small.state["blip2opt.opt_proj.weight"].to(torch.int8)
    state = {**small.state, "blip2opt.opt_proj.weight": quantized}
    error_details(tmp_path, small, state, message="opt_proj.weight has dtype torch.int8")


def test_convert_rejects_other_checkpoints_in_one_line(tmp_path, small):
    other = {"model.conv1.weight": torch.zeros(3), "model.fc.bias": torch.zeros(3)}
    message = "MolTC or MolCA: none of its 2 weights .* the first is 'model.conv1.weight'"
    assert error_details(tmp_path, small, other, message=message) == ()
    for content, reason in (
        ({"conv1.weight": torch.zeros(3)}, "no state_dict; its first entry is 'conv1.weight'"),
        ([1, 2], "no state_dict$"),
        ({"state_dict": [1]}, "no state_dict"),
        ({"state_dict": {"blip2opt.query_tokens": "x"}}, "is a str, not a tensor"),
        ({"state_dict": {}}, "is not a checkpoint of MolTC or MolCA"),
    ):
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(WeightsError, match=reason):
            convert_published(tmp_path / "x.ckpt", small.language_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_card_lists_unused_weights_with_their_purpose(converted):
    card = json.loads((converted / "card.json").read_text())
    assert card["conversion"]["unused"] == {
        "blip2opt.Qformer.bert.embeddings.position_ids": "position ids of texts"
    }


# Weights that MolCA does not save


def test_missing_statistics_error_suggests_graph_encoder_option(tmp_path, small):
    state = without(small.state, *STATISTICS, "position_ids")
    details = error_details(
        tmp_path,
        small,
        state,
        message=rf"missing weight {BATCH_NORM}0\.running_mean, and 5 more; give --graph-encoder",
    )
    assert len(details) == 6


def test_graph_encoder_file_fills_only_missing_weights(tmp_path, small):
    state = without(small.state, *STATISTICS)
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    options = {"graph_encoder": small.graph_encoder}
    report = convert_published(path, small.language_model, tmp_path / "c", **options)
    weights = read_weights(tmp_path / "c")
    for layer in (0, 1):
        for name in STATISTICS:
            filled = small.gin[f"batch_norms.{layer}.{name}"]
            assert torch.equal(weights[f"{GRAPH}layers.{layer}.norm.{name}"], filled)
        kept = small.state[f"{BATCH_NORM}{layer}.weight"]
        assert torch.equal(weights[f"{GRAPH}layers.{layer}.norm.weight"], kept)
    assert torch.equal(
        weights[f"{GRAPH}atom_type.weight"],
        small.state["blip2opt.graph_encoder.x_embedding1.weight"],
    )
    assert report.card["conversion"]["filled"] == {
        "from": "graphcl_80.pth",
        "weights": [f"{BATCH_NORM}{layer}.{name}" for layer in (0, 1) for name in STATISTICS],
    }


def test_graph_encoder_file_is_unused_without_missing_weights(tmp_path, small, converted):
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", graph_encoder=small.graph_encoder
    )
    same = (tmp_path / "c" / "model.safetensors").read_bytes()
    assert same == (converted / "model.safetensors").read_bytes()
    assert report.card["conversion"]["filled"]["weights"] == []


def test_graph_encoder_file_replaces_unsaved_graph_encoder(tmp_path, small):
    state = {k: t for k, t in small.state.items() if not k.startswith("blip2opt.graph_encoder.")}
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    convert_published(path, small.language_model, tmp_path / "c", graph_encoder=small.graph_encoder)
    weights = read_weights(tmp_path / "c")
    assert torch.equal(weights[f"{GRAPH}layers.1.mlp.0.weight"], small.gin["gnns.1.mlp.0.weight"])
    assert torch.equal(weights[f"{GRAPH}norm.bias"], state["blip2opt.ln_graph.bias"])
    error_details(tmp_path, small, state, message="missing weight .*x_embedding1.*--graph-encoder")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gnns.2.mlp.0.weight": torch.zeros(32, 16)}, "superfluous weight gnns.2.mlp.0.weight"),
        ({"graph_pred_linear.bias": torch.zeros(2)}, "superfluous weight graph_pred_linear.bias"),
        ({"x_embedding1.weight": torch.zeros(120, 8)}, r"\[120, 8\], expected \[120, 16\]"),
        ({"batch_norms.1.running_var": torch.zeros(9)}, r"running_var has shape \[9\], expected"),
        (
            {"batch_norms.1.running_var": torch.full((16,), torch.nan)},
            r"pth: batch_norms.1.running",
        ),
    ],
)
def test_convert_rejects_graph_encoder_file_of_another_model(tmp_path, small, change, reason):
    torch.save({**small.gin, **change}, tmp_path / "gin.pth")
    state = without(small.state, *STATISTICS)
    error_details(tmp_path, small, state, message=reason, graph_encoder=tmp_path / "gin.pth")


def test_convert_lists_weights_missing_from_both_files(tmp_path, small):
    torch.save(without(small.gin, *STATISTICS), tmp_path / "gin.pth")
    state = without(small.state, *STATISTICS)
    details = error_details(
        tmp_path,
        small,
        state,
        message="running_mean, and 5 more$",
        graph_encoder=tmp_path / "gin.pth",
    )
    assert len(details) == 6


# Stage 1


@pytest.fixture(scope="module")
def stage_1(small):
    return files.write_lightning(small.root / "stage1.ckpt", files.published_state(stage=1))


def test_stage_1_needs_new_projector(tmp_path, small, stage_1):
    with pytest.raises(WeightsError, match="no projection: give --new-projector"):
        convert_published(stage_1, small.language_model, tmp_path / "c")
    for seed, out in enumerate(("c", "again")):
        torch.manual_seed(seed)  # the projection has a seed of its kept
        report = convert_published(
            stage_1,
            small.language_model,
            tmp_path / out,
            new_projector=True,
            projector_sharing="role",
        )
    card = report.card
    assert "untrained" in card["note"]
    assert card["published"]["stage"] == 1
    assert card["conversion"]["drawn"] == {"projection": {"seed": 0}}
    unused = card["conversion"]["unused"]
    assert unused["blip2qformer.temp"]
    assert unused["blip2qformer.Qformer.bert.encoder.layer.1.output.LayerNorm.bias"]
    assert unused["blip2qformer.Qformer.cls.predictions.decoder.weight"]
    # Position ids, two embeddings, the head's two weights, six weights in each of three layers,
    # three projections and heads of two weights each, and the temperature.
    assert len(unused) == 1 + 2 + 2 + 3 * 6 + 6 + 1
    first, second = read_weights(tmp_path / "c"), read_weights(tmp_path / "again")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(first["projectors.role_0.weight"], first["projectors.role_1.weight"])
    assert 0 < first["projectors.role_0.weight"].std() < 0.1
    state = files.published_state(stage=1)
    value = state["blip2qformer.Qformer.bert.encoder.layer.0.output_query.dense.weight"]
    assert torch.equal(first["molecule_encoder.qformer.layers.0.down.weight"], value)


def test_new_projector_keeps_random_state(tmp_path, small, stage_1):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    convert_published(stage_1, small.language_model, tmp_path / "c", new_projector=True)
    assert torch.equal(torch.rand(1), expected)


def test_new_projector_rejects_trained_projection(tmp_path, small):
    error_details(
        tmp_path,
        small,
        message="has a projection, which --new-projector would discard",
        new_projector=True,
    )


def test_stage_1_error_lists_superfluous_weights(tmp_path, small):
    state = files.published_state(stage=1, extra={"blip2qformer.unknown": torch.zeros(1)})
    details = error_details(tmp_path, small, state, message="is a checkpoint of stage 1")
    assert details == ("superfluous weight blip2qformer.unknown",)
