"""Reader of Lightning checkpoints: the weights and hyper-parameters of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from moltc_vllm.models.conversion.pickles import read_pickle
from moltc_vllm.models.conversion.weight_names import PREFIXES, LightningWeights, group_weights
from moltc_vllm.models.weights import WeightsError

_RUN_FIELDS = ("epoch", "global_step", "pytorch-lightning_version")


class LightningCheckpoint(NamedTuple):
    """Content of a Lightning file that the conversion uses.

    Attributes:
        path: The file.
        weights: Weights, grouped by component.
        hyper_parameters: Command-line arguments of the training run; empty if not stored.
        run: Epoch, global step and Lightning's version, where stored.
    """

    path: Path
    weights: LightningWeights
    hyper_parameters: Mapping[str, Any]
    run: Mapping[str, Any]


def read_lightning(path: Path) -> LightningCheckpoint:
    """Read a checkpoint of the published code.

    Raises:
        WeightsError: If the file cannot be read or is not a checkpoint of MolTC or MolCA.
    """
    content = read_pickle(path)
    state = _state_dict(content, path)
    weights = group_weights(state)
    if weights is None:
        prefixes = " or ".join(PREFIXES.values())
        raise WeightsError(
            f"{path} is not a checkpoint of MolTC or MolCA: none of its {len(state)} weights "
            f"starts with {prefixes}; the first is {next(iter(state), None)!r}"
        )
    hyper_parameters = content.get("hyper_parameters")
    return LightningCheckpoint(
        path=path,
        weights=weights,
        hyper_parameters=hyper_parameters if isinstance(hyper_parameters, dict) else {},
        run={
            name: content[name] for name in _RUN_FIELDS if isinstance(content.get(name), (int, str))
        },
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        first = next(iter(content), None) if isinstance(content, dict) else None
        hint = f"; its first entry is {first!r}" if first is not None else ""
        raise WeightsError(f"{path} is not a Lightning checkpoint: no state_dict{hint}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: {name!r} in its state_dict is a {type(value).__name__}, not a tensor"
            )
    return state
