"""Learning rate schedule."""

from __future__ import annotations

import math

from moltc_vllm.train.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay.

    Args:
        recipe: Recipe with peak, warm-up, length and final ratio.
        step: Index of the step, from 0.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(recipe.max_steps - recipe.warmup_steps, 1)
    decay = 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.learning_rate * (recipe.min_lr_ratio + (1 - recipe.min_lr_ratio) * decay)
