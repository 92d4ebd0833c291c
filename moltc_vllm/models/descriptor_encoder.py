"""Encoder of a molecule's vector of descriptors to a vector for its pooled token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from moltc_vllm.chem.descriptor_vector import NUM_DESCRIPTORS

_CLIP = 6.0  # standard deviations; an unusual molecule must not saturate the layers


class DescriptorEncoder(nn.Module):
    """Two linear layers on normalized descriptors.

    The mean and standard deviation of each descriptor are those of the training molecules. They
    stay in float32 when the module is converted to half precision, because the vectors are
    normalized in float32.

    Args:
        dim: Width of the result; the hidden layer is twice as wide.
        dropout: Dropout probability of the hidden layer, in training only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_DESCRIPTORS, dtype=torch.float32))
        self.register_buffer("std", torch.ones(NUM_DESCRIPTORS, dtype=torch.float32))
        self.layers = nn.Sequential(
            nn.Linear(NUM_DESCRIPTORS, 2 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
        )

    @property
    def is_fitted(self) -> bool:
        """Whether mean and standard deviation were set."""
        return bool(self.mean.any()) or bool((self.std != 1).any())

    @torch.no_grad()
    def fit_normalization(self, matrix: Tensor) -> None:
        """Set the mean and standard deviation of each descriptor.

        Args:
            matrix: ``[N, NUM_DESCRIPTORS]`` vectors of the training molecules. A descriptor that
                is the same for all of them keeps a standard deviation of 1.
        """
        matrix = matrix.to(self.mean.device, torch.float64)
        std = matrix.std(0, correction=0)
        self.mean.copy_(matrix.mean(0))
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, descriptors: Tensor) -> Tensor:
        """Encode descriptors.

        Args:
            descriptors: ``[B, NUM_DESCRIPTORS]`` float32.

        Returns:
            ``[B, dim]`` in the dtype of the weights.
        """
        normalized = ((descriptors - self.mean) / self.std).clamp(-_CLIP, _CLIP)
        weight: Tensor = self.get_parameter("layers.0.weight")
        return self.layers(normalized.to(weight.dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {"mean": self.mean, "std": self.std}
        super()._apply(fn, recurse)
        for name, exact in before.items():
            buffer: Any = getattr(self, name)
            if buffer.dtype != torch.float32 and not exact.is_meta:
                setattr(self, name, exact.to(buffer.device))
        return self
