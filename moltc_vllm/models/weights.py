"""Checks of weights that are read from files: names, shapes, dtypes and finite values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Counter of a batch norm, the only weight of integer dtype.
_BATCH_COUNTER = "num_batches_tracked"


class WeightsError(ValueError):
    """Weights that are invalid or do not fit the model.

    Attributes:
        details: One line for each weight that does not fit.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def weight_mismatches(
    actual: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]
) -> list[str]:
    """Describe every weight that is superfluous, missing or has another shape.

    Args:
        actual: Shapes of the weights in the file, by name.
        expected: Shapes of the model's weights, by name.

    Returns:
        One line for each mismatch.
    """
    lines = [f"superfluous weight {key}" for key in actual if key not in expected]
    lines += [f"missing weight {key}" for key in expected if key not in actual]
    lines += [
        f"{key} has shape {list(actual[key])}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in actual and tuple(actual[key]) != tuple(shape)
    ]
    return lines


def summarize_mismatches(source: object, lines: Sequence[str]) -> str:
    """Write the first mismatch and the number of others on one line.

    Args:
        source: File or folder with the weights.
        lines: Lines from `weight_mismatches`, at least one.
    """
    return f"{source}: {lines[0]}" + (f", and {len(lines) - 1} more" if len(lines) > 1 else "")


def validated_tensor(key: str, tensor: Any, source: object) -> Tensor:
    """Check that a value is a usable weight and detach it, without changing its dtype.

    Args:
        key: Name of the weight.
        tensor: Value from a file.
        source: File that contains the weight, for error messages.

    Raises:
        WeightsError: If the value is not a dense floating-point tensor on CPU, or holds NaN or
            infinite values.
    """
    if not isinstance(tensor, Tensor):
        raise WeightsError(f"{source}: {key} is a {type(tensor).__name__}, not a tensor")
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsError(f"{source}: {key} is not an ordinary tensor")
    if not tensor.is_floating_point() and not key.endswith(_BATCH_COUNTER):
        raise WeightsError(f"{source}: {key} has dtype {tensor.dtype}, expected a floating one")
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{source}: {key} holds NaN or infinite values")
    return tensor
