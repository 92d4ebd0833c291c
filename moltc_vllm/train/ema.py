"""Exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from moltc_vllm.models.moltc import MoltcModel


def create_ema(model: MoltcModel, decay: float) -> AveragedModel | None:
    """Return a moving average of the weights, initialized with their current values.

    Args:
        model: Model to average.
        decay: Weight of the old average in each update; 0 turns averaging off.
    """
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def averaged_model(model: MoltcModel, ema: AveragedModel | None) -> MoltcModel:
    """Return the model with averaged weights, or the model itself if it has no average."""
    if ema is None:
        return model
    averaged = ema.module
    assert isinstance(averaged, MoltcModel)
    return averaged
