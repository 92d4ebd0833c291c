"""Composition of prompts: the checkpoint's prompt style, and its order of the molecules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from moltc_vllm.chem import MoleculeError
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.prompt import encoder_key_fn
from moltc_vllm.tasks import ComposedPrompt, Task, find_task_by_question

_KEY_CACHE_SIZE = 1 << 14  # molecules


class PromptComposer:
    """Composer of prompts in a checkpoint's style and with its order of molecules.

    If ``config.symmetric_order`` is ``canonical``, the molecules of a symmetric task are sorted by
    their encoder keys, so that both orders of a pair give the same prompt. Molecules with equal
    keys are sorted by their texts, which may be part of the prompt.

    Args:
        config: Configuration of the checkpoint.

    Attributes:
        style: Prompt style of the checkpoint.
    """

    def __init__(self, config: MoltcConfig) -> None:
        self.style = config.style
        self._sorts = config.symmetric_order == "canonical"
        # Checking a SMILES again would take longer than the rest of the composition.
        self._key = lru_cache(maxsize=_KEY_CACHE_SIZE)(encoder_key_fn(config))

    def compose(
        self, task: Task, smiles: Sequence[str], question: str | None = None
    ) -> ComposedPrompt:
        """Compose the prompt of a task; see `moltc_vllm.tasks.PromptStyle.compose`."""
        order = self.order(task, smiles)
        text, positions = self.style.compose(task, [smiles[index] for index in order], question)
        return ComposedPrompt(text, tuple(order[position] for position in positions))

    def order(self, task: Task, smiles: Sequence[str]) -> tuple[int, ...]:
        """Return the indices of the molecules in the order in which the prompt names them.

        Args:
            task: Task of the prompt.
            smiles: SMILES as written by the user. If one of them is invalid, the order is as given:
                the engine reports the molecule by its position.
        """
        given = tuple(range(len(smiles)))
        if not self._sorts or not task.symmetric or len(smiles) != len(task.roles):
            return given
        try:
            keys = [(self._key(text), text) for text in smiles]
        except MoleculeError:
            return given
        return tuple(sorted(given, key=keys.__getitem__))

    def order_by_question(self, smiles: Sequence[str], text: str) -> tuple[int, ...]:
        """Return `order` for the task whose question is in a text; without one, as given."""
        task = find_task_by_question(text) if self._sorts else None
        return tuple(range(len(smiles))) if task is None else self.order(task, smiles)


def ignores_order(config: MoltcConfig, task: Task) -> bool:
    """Return whether a checkpoint's answers to a task are equal for all orders of the molecules."""
    return task.symmetric and config.symmetric_order == "canonical"
