"""A Lightning checkpoint: the weights of a training run and what the run was told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from moltc_vllm.models.conversion.names import PREFIXES, Parts, sort_weights
from moltc_vllm.models.conversion.pickles import read_pickle
from moltc_vllm.models.weights import WeightsError


class Lightning(NamedTuple):
    """What of a Lightning file matters here."""

    path: Path
    parts: Parts
    hyper_parameters: Mapping[str, Any]
    run: Mapping[str, Any]  # epoch, global_step and Lightning's version, as far as they are there


def read_lightning(path: Path) -> Lightning:
    """Read a checkpoint of the published code.

    Raises:
        WeightsError: If it cannot be read, or is something else.
    """
    raw = read_pickle(path)
    state = raw.get("state_dict") if isinstance(raw, dict) else None
    if not isinstance(state, dict):
        first = next(iter(raw), None) if isinstance(raw, dict) else None
        entry = f"; its first entry is {first!r}" if first is not None else ""
        raise WeightsError(f"{path} is not a Lightning checkpoint: no state_dict{entry}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: {key!r} in its state_dict is a {type(value).__name__}, not a tensor"
            )
    parts = sort_weights(state)
    if parts is None:
        begins = " or ".join(PREFIXES.values())
        raise WeightsError(
            f"{path} is not of MolTC or MolCA: none of its {len(state)} weights begins with "
            f"{begins}; the first is {next(iter(state), None)!r}"
        )
    told = raw.get("hyper_parameters")
    names = ("epoch", "global_step", "pytorch-lightning_version")
    return Lightning(
        path=path,
        parts=parts,
        hyper_parameters=told if isinstance(told, dict) else {},
        run={name: raw[name] for name in names if isinstance(raw.get(name), (int, str))},
    )
