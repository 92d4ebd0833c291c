"""What everything that reads weights checks: names, shapes, and that they are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_COUNTER = "num_batches_tracked"  # of a batch norm: the only weight that is an integer


class WeightsError(ValueError):
    """Weights that cannot be used.

    Attributes:
        details: One line for every weight that does not fit.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def weight_mismatches(
    found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]
) -> list[str]:
    """One line for every weight that is superfluous, missing or of another shape.

    Args:
        found: Shapes by name.
        expected: Shapes by name.
    """
    lines = [f"superfluous weight {key}" for key in found if key not in expected]
    lines += [f"missing weight {key}" for key in expected if key not in found]
    lines += [
        f"{key} has shape {list(found[key])}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    return lines


def summary(source: object, lines: Sequence[str]) -> str:
    """One line for several."""
    return f"{source}: {lines[0]}" + (f", and {len(lines) - 1} more" if len(lines) > 1 else "")


def checked_tensor(key: str, tensor: Any, source: object) -> Tensor:
    """A weight without its gradient flag, in the dtype it has.

    Raises:
        WeightsError: If it is not a plain tensor, or holds NaN or an infinity.
    """
    if not isinstance(tensor, Tensor):
        raise WeightsError(f"{source}: {key} is a {type(tensor).__name__}, not a tensor")
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsError(f"{source}: {key} is not an ordinary tensor")
    if not tensor.is_floating_point() and not key.endswith(_COUNTER):
        raise WeightsError(f"{source}: {key} has dtype {tensor.dtype}, expected a floating one")
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{source}: {key} holds NaN or infinite values")
    return tensor
