"""Exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from moltc_vllm.models.moltc import MoltcModel


def create_ema(model: MoltcModel, decay: float) -> AveragedModel | None:
    """Return a moving average of the weights, initialized with their current values.

    Args:
        model: Model to average.
        decay: Weight of the old average in each update; 0 turns averaging off.
    """
    if not decay:
        return None

    @torch.no_grad()
    def update(averages: Sequence[Tensor], values: Sequence[Tensor], _: Tensor | int) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(values), 1 - decay)
            return
        # Hash keys and step counts have no meaningful average.
        for average, value in zip(averages, values, strict=True):
            average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def averaged_model(model: MoltcModel, ema: AveragedModel | None) -> MoltcModel:
    """Return the model with averaged weights, or the model itself if it has no average."""
    if ema is None:
        return model
    averaged = ema.module
    assert isinstance(averaged, MoltcModel)
    return averaged
