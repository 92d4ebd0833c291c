"""Projectors: copied to more places, and never joined."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from moltc_vllm.models import CheckpointError, load_config, load_model
from moltc_vllm.models.conversion.convert import convert_published, split_projectors
from moltc_vllm.models.weights import WeightsError
from tests.models.published.converting import (
    weights_of,
)


@pytest.mark.parametrize("sharing", ["role", "task_role"])
def test_published_projections_are_copied_to_all_places(tmp_path, small, sharing):
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", projector_sharing=sharing
    )
    own = {k: t for k, t in weights_of(tmp_path / "c").items() if k.startswith("projectors.")}
    places = 2 if sharing == "role" else 2 * len(report.config.tasks)
    assert len(own) == 2 * places
    for key, tensor in own.items():
        assert torch.equal(tensor, small.state[f"blip2opt.opt_proj.{key.rsplit('.')[-1]}"])
    assert load_model(tmp_path / "c").config.projector_sharing == sharing


@pytest.fixture(scope="module")
def with_adapter(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split") / "whole"
    convert_published(
        small.lightning, small.language_model, folder, lora=small.lora, lora_as="adapter"
    )
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("kept")
    return folder


def test_a_split_keeps_everything_else(tmp_path, with_adapter):
    split_projectors(with_adapter, tmp_path / "roles", "role")
    split_projectors(tmp_path / "roles", tmp_path / "tasks", "task_role")
    split_projectors(with_adapter, tmp_path / "direct", "task_role")
    before = weights_of(with_adapter)
    for name in ("roles", "tasks", "direct"):
        after = weights_of(tmp_path / name)
        for key, tensor in before.items():
            if not key.startswith("projectors."):
                assert torch.equal(tensor, after[key])
                assert tensor.dtype == after[key].dtype
        added = {key for key in after if key.startswith("projectors.")}
        for key in added:
            assert torch.equal(after[key], before[f"projectors.shared.{key.rsplit('.')[-1]}"])
        assert len(added) == len(after) - len(before) + 2
        load_model(tmp_path / name)
        changed = {"config.json", "card.json", "model.safetensors"}
        for path in with_adapter.rglob("*"):
            inside = path.relative_to(with_adapter)
            if path.is_file() and str(inside) not in changed:
                assert (tmp_path / name / inside).read_bytes() == path.read_bytes()
        assert {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")} == {
            p.relative_to(with_adapter) for p in with_adapter.rglob("*")
        }
    configs = [
        json.loads((f / "config.json").read_text()) for f in (with_adapter, tmp_path / "roles")
    ]
    assert configs[1].pop("projector_sharing") == "role"
    assert configs[0].pop("projector_sharing") == "shared"
    assert configs[0] == configs[1]


def test_a_split_is_noted_in_the_card(tmp_path, with_adapter):
    split_projectors(with_adapter, tmp_path / "roles", "role")
    split_projectors(tmp_path / "roles", tmp_path / "tasks", "task_role")
    old = json.loads((with_adapter / "card.json").read_text())
    new = json.loads((tmp_path / "tasks" / "card.json").read_text())
    steps = new.pop("steps")
    assert [step["step"] for step in steps] == [
        "projectors shared -> role, copied",
        "projectors role -> task_role, copied",
    ]
    assert [step["checkpoint"] for step in steps] == ["whole", "roles"]
    assert steps[0]["inputs"][0]["sha256"] == old["sha256"]["model.safetensors"]
    assert new.pop("sha256") != old.pop("sha256")
    assert new == old


def test_a_split_keeps_what_roles_learned(tmp_path, tiny_roles):
    split_projectors(tiny_roles, tmp_path / "tasks", "task_role")
    before, after = weights_of(tiny_roles), weights_of(tmp_path / "tasks")
    assert not torch.equal(before["projectors.role_0.weight"], before["projectors.role_1.weight"])
    for task in load_config(tiny_roles).tasks:
        for role in ("role_0", "role_1"):
            copied = after[f"projectors.{task}_{role}.weight"]
            assert torch.equal(copied, before[f"projectors.{role}.weight"])


def test_projectors_are_not_joined(tmp_path, tiny, tiny_roles, tiny_llama):
    for folder, sharing, reason in (
        (tiny_roles, "shared", r"2 that may differ cannot become 1 \('shared'\)"),
        (tiny_llama, "role", r"that may differ cannot become 2 \('role'\)"),
        (tiny_llama, "shared", "cannot become 1"),
        (tiny, "shared", "has projectors 'shared' already"),
        (tiny_roles, "role", "has projectors 'role' already"),
        (tmp_path / "nowhere", "role", "is not a checkpoint folder"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            split_projectors(folder, tmp_path / "c", sharing)
    with pytest.raises(CheckpointError, match=r"is inside .*which is copied"):
        split_projectors(tiny, tiny / "roles", "role")
    with pytest.raises(ValueError, match="'many' is none of"):
        split_projectors(tiny, tmp_path / "c", "many")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_whole_is_not_split(tmp_path, tiny):
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    lost = "molecule_encoder.graph_encoder.layers.0.mlp.0.bias"
    del weights[lost]
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=f"missing weight {lost}"):
        split_projectors(folder, tmp_path / "c", "role")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
