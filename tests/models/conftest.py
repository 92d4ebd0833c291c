"""Checkpoints with adapters."""

import shutil

import pytest


@pytest.fixture(scope="session")
def adapted(tmp_path_factory):
    """A tiny checkpoint with the adapters ``ddi`` and ``solvation``."""
    from moltc_vllm.models import create_checkpoint
    from tests.adapters import write_adapter

    folder = tmp_path_factory.mktemp("checkpoints") / "adapted"
    create_checkpoint("tiny", folder, projector_sharing="task_role")
    write_adapter(folder, "ddi", ["q_proj", "v_proj"], rank=4, seed=1)
    write_adapter(folder, "solvation", ["fc1", "out_proj"], rank=8, lora_alpha=4, seed=2)
    return folder


@pytest.fixture
def broken(adapted, tmp_path):
    """A copy with the adapter ``ddi`` alone, for tests that damage it."""
    folder = tmp_path / "broken"
    shutil.copytree(adapted, folder)
    shutil.rmtree(folder / "adapters" / "solvation")
    return folder
