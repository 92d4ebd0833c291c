"""Encoders of single molecules, from which `baselines.pair_networks` makes networks of pairs.

Each encoder holds the inputs of all molecules of a problem, so that a batch is a list of their
indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.molecule_features import Features, FeatureStore, read_molecule, standardize

GRAPH_WIDTH, GRAPH_LAYERS = 128, 3
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 128, 2, 4
MAX_CHARACTERS = 128
"""Longest SMILES that the language model reads; longer ones lose their end."""


class FeatureEncoder(nn.Module):
    """Fixed features of molecules.

    Args:
        features: Standardized features, ``[molecules, width]``.
    """

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.width = features.shape[1]
        self.register_buffer("features", torch.from_numpy(features), persistent=False)

    def forward(self, molecules: Tensor) -> Tensor:
        """Return the features of molecules, ``[molecules, width]``."""
        return self.features[molecules]


def read_features(
    store: FeatureStore, kinds: Sequence[str], molecules: Sequence[str], num_train: int
) -> tuple[Features, float]:
    """Read and standardize several kinds of features.

    Args:
        store: Features that have been computed before.
        kinds: Kinds of features.
        molecules: SMILES, those of train rows first.
        num_train: Number of molecules of train rows.

    Returns:
        Features, ``[molecules, width]``, and the CPU seconds of their computation.
    """
    is_train = np.arange(len(molecules)) < num_train
    tables, seconds = [], 0.0
    for kind in kinds:
        features = store.read(kind, molecules)
        seconds += features.cpu_s
        # Counts of fragments are compressed already, and scaling would inflate rare ones.
        is_scaled = kind != "morgan"
        tables.append(standardize(features.values, is_train) if is_scaled else features.values)
    return np.concatenate(tables, axis=1), seconds


class GraphNetwork(nn.Module):
    """Graph isomorphism network with bond features (GINE), and the mean and sum of its atoms.

    Atoms and bonds have PyG's features of ``from_smiles``: element, chirality, degree, charge,
    hydrogens, radicals, hybridization, aromaticity and ring; type, stereochemistry and conjugation.

    Args:
        molecules: SMILES.
        dropout: Dropout rate after each layer.

    Source: Xu et al. 2019; Hu et al. 2020 (bond features).
    """

    def __init__(self, molecules: Sequence[str], dropout: float) -> None:
        from torch_geometric.nn import GINEConv
        from torch_geometric.utils import from_smiles
        from torch_geometric.utils.smiles import e_map, x_map

        super().__init__()
        self.width = 2 * GRAPH_WIDTH
        self.graphs = []
        for smiles in molecules:
            read_molecule(smiles)  # PyG makes an empty graph of a SMILES that it cannot read
            self.graphs.append(from_smiles(smiles))
        self.atom_features = nn.ModuleList(
            nn.Embedding(len(values), GRAPH_WIDTH) for values in x_map.values()
        )
        self.bond_features = nn.ModuleList(
            nn.Embedding(len(values), GRAPH_WIDTH) for values in e_map.values()
        )
        self.layers = nn.ModuleList(
            GINEConv(
                nn.Sequential(
                    nn.Linear(GRAPH_WIDTH, 2 * GRAPH_WIDTH),
                    nn.GELU(),
                    nn.Linear(2 * GRAPH_WIDTH, GRAPH_WIDTH),
                )
            )
            for _ in range(GRAPH_LAYERS)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(GRAPH_WIDTH) for _ in range(GRAPH_LAYERS))
        self.dropout = nn.Dropout(dropout)

    def forward(self, molecules: Tensor) -> Tensor:
        """Encode molecules, ``[molecules, width]``."""
        from torch_geometric.data import Batch
        from torch_geometric.nn import global_add_pool, global_mean_pool

        batch = Batch.from_data_list([self.graphs[index] for index in molecules.tolist()])
        atoms = sum(table(x) for table, x in zip(self.atom_features, batch.x.T, strict=True))
        bonds = sum(
            table(x) for table, x in zip(self.bond_features, batch.edge_attr.T, strict=True)
        )
        for layer, norm in zip(self.layers, self.norms, strict=True):
            atoms = atoms + self.dropout(norm(layer(atoms, batch.edge_index, bonds)))
        size = len(molecules)
        mean = global_mean_pool(atoms, batch.batch, size)
        # The sum grows with the molecule; its scale is that of a molecule of average size.
        return torch.cat([mean, global_add_pool(atoms, batch.batch, size) / 20], dim=1)


class SmilesLanguageModel(nn.Module):
    """Causal transformer over the characters of a SMILES, and the mean of its last states.

    Args:
        molecules: SMILES.
        dropout: Dropout rate of the transformer.
    """

    def __init__(self, molecules: Sequence[str], dropout: float) -> None:
        super().__init__()
        self.width = TEXT_WIDTH
        alphabet = sorted({character for smiles in molecules for character in smiles})
        codes = {character: code for code, character in enumerate(alphabet, 2)}  # 0 pads, 1 begins
        tokens = np.zeros((len(molecules), MAX_CHARACTERS + 1), dtype=np.int64)
        for row, smiles in zip(tokens, molecules, strict=True):
            row[: len(smiles) + 1] = [1, *(codes[c] for c in smiles)][: MAX_CHARACTERS + 1]
        self.register_buffer("tokens", torch.from_numpy(tokens), persistent=False)
        self.embedding = nn.Embedding(len(codes) + 2, TEXT_WIDTH, padding_idx=0)
        self.position = nn.Embedding(MAX_CHARACTERS + 1, TEXT_WIDTH)
        layer = nn.TransformerEncoderLayer(
            *(TEXT_WIDTH, TEXT_HEADS, 4 * TEXT_WIDTH, dropout, "gelu"),
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, TEXT_LAYERS, nn.LayerNorm(TEXT_WIDTH), enable_nested_tensor=False
        )

    def forward(self, molecules: Tensor) -> Tensor:
        """Encode molecules, ``[molecules, width]``."""
        tokens, states = self._states(molecules)
        is_token = (tokens != 0).unsqueeze(2)
        return (states * is_token).sum(dim=1) / is_token.sum(dim=1)

    def language_loss(self, molecules: Tensor) -> Tensor:
        """Return the cross-entropy of each next character, with tied embeddings."""
        tokens, states = self._states(molecules)
        logits = F.linear(states[:, :-1], self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0)

    def _states(self, molecules: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens[molecules]
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        length = tokens.shape[1]
        inputs = self.embedding(tokens) + self.position.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        # Padding is at the end, so that no causal state of a character attends to it.
        return tokens, self.transformer(inputs, mask=mask, is_causal=True)
