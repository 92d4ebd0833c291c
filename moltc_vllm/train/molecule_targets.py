"""Auxiliary training of the molecule encoder: it predicts calculated properties of molecules.

The heads are linear and are dropped when the model is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moltc_vllm.data.molecule_targets import WIDTHS, Floats, TargetKind, compute_targets
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.train.examples import MoleculeTable
from moltc_vllm.train.recipe import MoleculeSettings
from moltc_vllm.train.sampler import step_rng
from moltc_vllm.utils.cpus import available_cpus

_CLIP = 6.0  # standard deviations beyond which a target is an outlier
_SAMPLER_NAME = "molecules"


class MoleculeBatch(NamedTuple):
    """Molecules with their targets."""

    molecules: BatchMolGraph  # B graphs
    targets: dict[TargetKind, Tensor]  # each [B, width] float32; NaN where there is no target


class MoleculeTargets:
    """Standardized targets of the molecules of a run.

    Args:
        settings: Kinds of targets and number of molecules in a batch.
        table: Table of molecules.
        smiles: Molecules to train on; those that were rejected by the table are left out.
        cache: Folder for the calculated targets.
        seed: Seed of the drawn batches.
        message: Callback that receives lines of progress.

    Raises:
        DataError: If a target needs a package that is not installed.
    """

    def __init__(
        self,
        settings: MoleculeSettings,
        table: MoleculeTable,
        smiles: Sequence[str],
        cache: Path,
        seed: int,
        message: Callable[[str], None] = lambda _: None,
    ) -> None:
        accepted = [text for text in dict.fromkeys(smiles) if table.index(text) is not None]
        self._table = table
        self._index = np.array([table.index(text) for text in accepted], np.int64)
        self._batch_size = settings.batch_size
        self._seed = seed
        workers = available_cpus()
        self._values = {
            kind: _standardize(
                compute_targets(accepted, kind, cache, workers=workers, progress=message),
                by_column=kind != "fingerprint",
            )
            for kind in settings.targets
        }

    def __len__(self) -> int:
        return len(self._index)

    @property
    def molecules(self) -> npt.NDArray[np.int64]:
        """Indices of the molecules in the table, ``[N]``."""
        return self._index

    def batch(
        self, step: int, process: int, processes: int, device: torch.device | str
    ) -> MoleculeBatch:
        """Draw the molecules of a step, as a pure function of seed and step.

        Args:
            step: Step, counted from 0.
            process: Index of this process.
            processes: Number of processes, which divide the molecules among themselves.
            device: Device of the tensors.
        """
        rng = step_rng(self._seed, _SAMPLER_NAME, step)
        drawn = rng.integers(len(self._index), size=self._batch_size)[process::processes]
        return MoleculeBatch(
            self._table.resident(device).gather(torch.from_numpy(self._index[drawn])),
            {
                kind: torch.from_numpy(values[drawn].astype(np.float32)).to(device)
                for kind, values in self._values.items()
            },
        )


class MoleculeHeads(nn.ModuleDict):
    """One linear layer per kind of target, from a molecule's tokens to the target's values.

    Args:
        config: Configuration of the model.
        kinds: Kinds of targets.
    """

    def __init__(self, config: MoltcConfig, kinds: Sequence[TargetKind]) -> None:
        width = config.qformer_config.num_queries * config.qformer_config.hidden_size
        super().__init__({kind: nn.Linear(width, WIDTHS[kind]) for kind in kinds})

    def loss(self, encoder: MoleculeEncoder, batch: MoleculeBatch) -> Tensor:
        """Compute the mean smooth L1 loss over kinds, values and molecules; a scalar."""
        tokens = encoder(batch.molecules).flatten(1)  # [B, Q D]
        losses = [
            _masked_loss(self[kind](tokens).float(), target)
            for kind, target in batch.targets.items()
        ]
        return torch.stack(losses).mean()


def _masked_loss(prediction: Tensor, target: Tensor) -> Tensor:
    known = ~target.isnan()
    losses = F.smooth_l1_loss(prediction, target.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def _standardize(values: Floats, *, by_column: bool) -> Floats:
    """Subtract the mean of every column and divide by its standard deviation.

    Args:
        values: ``[N, width]``; NaN where there is no value.
        by_column: Whether columns are divided by their own deviations, or all of them by one, as
            rare environments of a fingerprint would otherwise dominate the loss.
    """
    if not len(values):
        return values
    wide = values.astype(np.float32)
    mean = np.nan_to_num(np.nanmean(wide, axis=0))
    deviation = np.nan_to_num(np.nanstd(wide, axis=0))
    if not by_column:
        deviation = np.full_like(deviation, np.sqrt(np.mean(deviation**2)))
    wide = (wide - mean) / np.maximum(deviation, 1e-6)
    return np.clip(wide, -_CLIP, _CLIP).astype(np.float16)
