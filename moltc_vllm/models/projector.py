"""The projector bank: from a molecule's tokens to the language model's width.

Dynamic parameter sharing (MolTC section 3.3): one projector serves both molecules until
fine-tuning; after it each role, or each task and role, may own one. Which projector a molecule
takes is decided once, here, from the checkpoint's configuration.
"""

from __future__ import annotations

from torch import Tensor, nn

from moltc_vllm.models.config import MoltcConfig


class ProjectorError(ValueError):
    """A role or task for which the checkpoint has no projector."""


def projector_names(config: MoltcConfig) -> list[str]:
    """Names of the checkpoint's projectors; a projector's number is its place in this list."""
    roles = [f"role_{role}" for role in range(config.num_roles)]
    match config.projector_sharing:
        case "shared":
            return ["shared"]
        case "role":
            return roles
        case "task_role":
            return [f"{task}_{role}" for task in config.tasks for role in roles]


def projector_index(config: MoltcConfig, role: int, task: str | None) -> int:
    """Which projector a molecule takes.

    Args:
        config: The checkpoint's configuration.
        role: Place of the molecule in the prompt, from 0; places beyond the last role share it.
        task: Name of the task, needed only where projectors depend on it.

    Raises:
        ProjectorError: If the role is negative, or the task is unknown or missing where needed.
    """
    if role < 0:
        raise ProjectorError(f"role {role} is negative")
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
    """One linear layer per projector name."""

    def __init__(self, config: MoltcConfig) -> None:
        width = config.qformer_config.hidden_size
        out = config.text_config.hidden_size
        # OPT-350m's layout: embeddings narrower than the hidden states.
        out = getattr(config.text_config, "word_embed_proj_dim", None) or out
        super().__init__({name: nn.Linear(width, out) for name in projector_names(config)})
        self.width = out

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Project every molecule with its own projector.

        Args:
            tokens: ``[B, Q, D]``.
            index: Projector number of each molecule, ``[B]`` integers; best on the host.

        Returns:
            ``[B, Q, H]``.
        """
        layers = list(self.values())
        if len(layers) == 1:
            return layers[0](tokens)
        out = tokens.new_empty(*tokens.shape[:2], self.width)
        for number in index.unique().tolist():
            rows = (index == number).nonzero().flatten().to(tokens.device)
            # Of one dtype also where autocast makes the product's narrower.
            out = out.index_copy(0, rows, layers[number](tokens[rows]).to(out.dtype))
        return out
