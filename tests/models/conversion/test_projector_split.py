"""Copies of projectors for roles and tasks."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from moltc_vllm.models import CheckpointError, load_config, load_model
from moltc_vllm.models.conversion.convert import convert_published, split_projectors
from moltc_vllm.models.weights import WeightsError
from tests.models.conversion.helpers import read_weights


@pytest.mark.parametrize("sharing", ["role", "task_role"])
def test_convert_copies_projection_for_each_role_or_task(tmp_path, small, sharing):
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", projector_sharing=sharing
    )
    projectors = {
        k: t for k, t in read_weights(tmp_path / "c").items() if k.startswith("projectors.")
    }
    count = 2 if sharing == "role" else 2 * len(report.config.tasks)
    assert len(projectors) == 2 * count
    for key, tensor in projectors.items():
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


def test_split_keeps_all_other_weights_and_files(tmp_path, with_adapter):
    split_projectors(with_adapter, tmp_path / "roles", "role")
    split_projectors(tmp_path / "roles", tmp_path / "tasks", "task_role")
    split_projectors(with_adapter, tmp_path / "direct", "task_role")
    before = read_weights(with_adapter)
    for name in ("roles", "tasks", "direct"):
        after = read_weights(tmp_path / name)
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


def test_split_is_recorded_in_card(tmp_path, with_adapter):
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


def test_split_copies_each_roles_projector(tmp_path, tiny_roles):
    split_projectors(tiny_roles, tmp_path / "tasks", "task_role")
    before, after = read_weights(tiny_roles), read_weights(tmp_path / "tasks")
    assert not torch.equal(before["projectors.role_0.weight"], before["projectors.role_1.weight"])
    for task in load_config(tiny_roles).tasks:
        for role in ("role_0", "role_1"):
            copied = after[f"projectors.{task}_{role}.weight"]
            assert torch.equal(copied, before[f"projectors.{role}.weight"])


def test_split_rejects_fewer_projectors(tmp_path, tiny, tiny_roles, tiny_llama):
    for folder, sharing, reason in (
        (
            tiny_roles,
            "shared",
            r"2 projectors \('role'\), which may differ and cannot be joined into 1 \('shared'\)",
        ),
        (tiny_llama, "role", r"may differ and cannot be joined into 2 \('role'\)"),
        (tiny_llama, "shared", "cannot be joined into 1"),
        (tiny, "shared", "already has projectors 'shared'"),
        (tiny_roles, "role", "already has projectors 'role'"),
        (tmp_path / "missing", "role", "is not a checkpoint folder"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            split_projectors(folder, tmp_path / "c", sharing)
    with pytest.raises(CheckpointError, match=r"must not be inside .*which is copied"):
        split_projectors(tiny, tiny / "roles", "role")
    with pytest.raises(ValueError, match="must be one of shared, role, task_role, not 'many'"):
        split_projectors(tiny, tmp_path / "c", "many")
    assert list(tmp_path.iterdir()) == []


def test_split_rejects_incomplete_checkpoint(tmp_path, tiny):
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    missing = "molecule_encoder.graph_encoder.layers.0.mlp.0.bias"
    del weights[missing]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=f"missing weight {missing}"):
        split_projectors(folder, tmp_path / "c", "role")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
