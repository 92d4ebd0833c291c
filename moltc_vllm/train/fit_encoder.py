"""Statistics of the training molecules that a new molecule encoder needs before its first step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moltc_vllm.data.dataset_registry import COMPUTED_DATASETS
from moltc_vllm.models.atom_environments import (
    KnownEnvironments,
    count_distinct,
    molecule_hashes,
    salt_by_radius,
)
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.train.recipe import PROPERTIES, Recipe
from moltc_vllm.train.resident import ResidentMolecules
from moltc_vllm.train.training_data import TrainingData

MIN_MOLECULES = 3
"""Number of training molecules below which an environment is not worth a row of its own."""

MIN_PAIRS = 15
"""Number of measured training pairs below which a molecule is not worth a row of its own."""

Integers = npt.NDArray[np.int64]

_NOT_MEASURED = COMPUTED_DATASETS | {PROPERTIES}
_CHUNK = 2048  # molecules hashed together


def fit_encoder(
    model: MoltcModel,
    data: TrainingData,
    recipe: Recipe,
    message: Callable[[str], None] = lambda _: None,
) -> None:
    """Fill the vocabularies of environments and molecules, and the scale of descriptors, in place.

    Vocabularies that an earlier stage has filled are kept, because their rows are trained.

    Args:
        model: Model at the beginning of a stage.
        data: Training data of the stage.
        recipe: Recipe of the stage.
        message: Callback that receives one line for each vocabulary.
    """
    encoder = model.molecule_encoder.graph_encoder
    known, environments = encoder.known_molecules, encoder.environments
    fits_environments = (
        isinstance(environments, KnownEnvironments) and environments.vocabulary.size == 0
    )
    fits_molecules = known is not None and recipe.stage == "finetune" and known.vocabulary.size == 0
    trained = _training_molecules(data)
    if fits_environments or fits_molecules:
        resident = data.molecules.resident("cpu")
        salted, identities = _hash_molecules(model, resident, trained)
        if fits_environments and isinstance(environments, KnownEnvironments):
            size = environments.vocabulary.fit(*count_distinct(salted), MIN_MOLECULES)
            message(f"{size} environments of {len(trained)} training molecules have rows")
        if fits_molecules and known is not None:
            pairs = _count_pairs(data, len(resident))[trained]
            distinct, index = torch.unique(identities, return_inverse=True)
            counts = torch.zeros(len(distinct), dtype=torch.int64).index_add(
                0, index, torch.from_numpy(pairs)
            )
            message(f"{known.vocabulary.fit(distinct, counts, MIN_PAIRS)} molecules have rows")
    if encoder.descriptors is not None and not encoder.descriptors.is_fitted:
        batch = data.molecules.resident("cpu").gather(torch.from_numpy(trained))
        assert batch.descriptors is not None
        encoder.descriptors.fit_normalization(batch.descriptors)


def _training_molecules(data: TrainingData) -> Integers:
    """Return the indices of all molecules that this stage trains on, ascending."""
    used: list[npt.NDArray[np.integer]] = [
        examples.molecules.ravel() for examples in data.train.values()
    ]
    if data.molecule_targets is not None:
        used.append(data.molecule_targets.molecules)
    return np.unique(np.concatenate(used)).astype(np.int64)


def _count_pairs(data: TrainingData, molecules: int) -> Integers:
    counts = np.zeros(molecules, np.int64)
    for name, examples in data.train.items():
        if name not in _NOT_MEASURED:
            counts += np.bincount(examples.molecules.ravel(), minlength=molecules)
    return counts


def _hash_molecules(
    model: MoltcModel,
    resident: ResidentMolecules,
    indices: Integers,
) -> tuple[list[Tensor], Tensor]:
    """Hash the environments of each molecule, salted by radius, and the molecules as a whole."""
    encoder = model.molecule_encoder.graph_encoder
    salted: list[Tensor] = []
    identities: list[Tensor] = []
    for chunk in torch.from_numpy(indices).split(_CHUNK):
        batch = resident.gather(chunk)
        hashes = encoder.hashes(batch)
        sizes = batch.molecule_offsets.diff().tolist()
        salted += salt_by_radius(hashes).split(sizes)
        identities.append(molecule_hashes(hashes, batch))
    return salted, torch.cat(identities)
