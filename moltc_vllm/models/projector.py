"""Projectors from molecule tokens to the width of the language model.

Source: MolTC (Fang et al. 2024), section 3.3, dynamic parameter sharing: one projector serves both
molecules of a pair in pre-training; afterwards each role, or each task and role, may have its own.
"""

from __future__ import annotations

from torch import Tensor, nn

from moltc_vllm.models.config import MoltcConfig


class ProjectorError(ValueError):
    """A role or task for which the checkpoint has no projector."""


def projector_names(config: MoltcConfig) -> list[str]:
    """List the names of the checkpoint's projectors, in the order of their indices."""
    roles = [f"role_{role}" for role in range(config.num_roles)]
    match config.projector_sharing:
        case "shared":
            return ["shared"]
        case "role":
            return roles
        case "task_role":
            return [f"{task}_{role}" for task in config.tasks for role in roles]


def projector_index(config: MoltcConfig, role: int, task: str | None) -> int:
    """Return the index of the projector that a molecule needs.

    Args:
        config: Configuration of the checkpoint.
        role: Position of the molecule in the prompt, from 0; positions beyond the last role use
            the last role's projector.
        task: Name of the task; required only where projectors depend on it.

    Raises:
        ProjectorError: If the role is negative, or the task is unknown or missing where needed.
    """
    if role < 0:
        raise ProjectorError(f"role {role} is negative; roles count from 0")
    if task is not None and task not in config.tasks:
        raise ProjectorError(
            f"unknown task {task!r}; this checkpoint has {', '.join(config.tasks)}"
        )
    role = min(role, config.num_roles - 1)
    match config.projector_sharing:
        case "shared":
            return 0
        case "role":
            return role
        case "task_role":
            if task is None:
                raise ProjectorError(
                    "this checkpoint has a projector per task: name the task "
                    f"({', '.join(config.tasks)})"
                )
            return config.tasks.index(task) * config.num_roles + role


class ProjectorBank(nn.ModuleDict):
    """One linear layer for each projector name."""

    def __init__(self, config: MoltcConfig) -> None:
        in_size = config.qformer_config.hidden_size
        out_size = config.text_config.hidden_size
        # In OPT-350m embeddings are narrower than hidden states.
        out_size = getattr(config.text_config, "word_embed_proj_dim", None) or out_size
        super().__init__({name: nn.Linear(in_size, out_size) for name in projector_names(config)})
        self.width = out_size

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Project each molecule's tokens with its own projector.

        Args:
            tokens: ``[B, Q, D]`` molecule tokens.
            index: ``[B]`` integers, projector index of each molecule; on the host it saves a
                synchronization with the device.

        Returns:
            ``[B, Q, H]``.
        """
        layers = list(self.values())
        if len(layers) == 1:
            return layers[0](tokens)
        out = tokens.new_empty(*tokens.shape[:2], self.width)  # [B, Q, H]
        for layer_index in index.unique().tolist():
            rows = (index == layer_index).nonzero().flatten().to(tokens.device)
            # Autocast may return a narrower dtype than that of `out`.
            out = out.index_copy(0, rows, layers[layer_index](tokens[rows]).to(out.dtype))
        return out
