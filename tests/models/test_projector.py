"""Projectors: one for each role or task, chosen by index."""

import pytest
import torch

from moltc_vllm.models import (
    MoltcConfig,
    ProjectorBank,
    ProjectorError,
    QFormerConfig,
    projector_index,
)
from moltc_vllm.models.projector import projector_names


def config_with(sharing: str) -> MoltcConfig:
    return MoltcConfig(
        qformer_config=QFormerConfig(hidden_size=12, num_attention_heads=3),
        projector_sharing=sharing,
        tasks=["ddi", "solvation"],
    )


@pytest.mark.parametrize(("sharing", "count"), [("shared", 1), ("role", 2), ("task_role", 4)])
def test_projector_bank_applies_each_molecules_own_layer(sharing, count):
    config = config_with(sharing)
    config.text_config.word_embed_proj_dim = 20
    bank = ProjectorBank(config)
    assert list(bank) == projector_names(config)
    assert len(bank) == count
    tokens = torch.randn(7, 8, 12)
    index = torch.arange(7) % count
    got = bank(tokens, index)
    for row, layer in enumerate(index.tolist()):
        torch.testing.assert_close(got[row], list(bank.values())[layer](tokens[row]))


def test_projector_index_depends_on_sharing():
    assert {projector_index(config_with("shared"), role, "ddi") for role in (0, 1, 5)} == {0}
    assert [projector_index(config_with("role"), role, None) for role in (0, 1, 2)] == [0, 1, 1]
    config = config_with("task_role")
    assert [projector_index(config, role, "solvation") for role in (0, 1, 9)] == [2, 3, 3]


def test_projector_index_refuses_unknown_task_or_role():
    config = config_with("task_role")
    with pytest.raises(ProjectorError, match="name the task"):
        projector_index(config, 0, None)
    with pytest.raises(ProjectorError, match="unknown task 'x'"):
        projector_index(config, 0, "x")
    with pytest.raises(ProjectorError, match="negative"):
        projector_index(config, -1, "ddi")
