"""Serialization of a molecule to one tensor of bytes for the engine and its worker.

vLLM serializes every tensor of a prompt twice on its way to the worker and collates it there, which
takes longer than the model needs for most molecules. A molecule is therefore a single tensor, and
the worker deserializes only the graphs of molecules that it has to encode.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moltc_vllm.chem import PackedMolecule
from moltc_vllm.plugin.modality.encoder_cache import MoleculeId

# Molecule id, projector, atoms, directed bonds, descriptors.
_HEADER = struct.Struct("=2q4i")


class PackedRow(NamedTuple):
    """A serialized molecule with its header unpacked.

    Attributes:
        molecule_id: 128-bit hash of the molecule's key.
        projector: Index in the checkpoint's projector bank.
        num_atoms: Number of atoms.
        num_bonds: Number of directed bonds, two for each bond.
        num_descriptors: Length of the vector of descriptors; 0 without one.
        graph_bytes: ``[4 num_descriptors + 6 num_atoms + 3 num_bonds]`` uint8, the arrays of the
            graph.
    """

    molecule_id: MoleculeId
    projector: int
    num_atoms: int
    num_bonds: int
    num_descriptors: int
    graph_bytes: Tensor

    def graph(self) -> PackedMolecule:
        """Return the graph, whose arrays are views of `graph_bytes`."""
        atoms, bonds = self.num_atoms, self.num_bonds
        descriptor_bytes = 4 * self.num_descriptors
        int16_end = descriptor_bytes + 2 * (2 * atoms + bonds)
        float32_bytes, int16_bytes, uint8_values = np.split(
            self.graph_bytes.numpy(), [descriptor_bytes, int16_end]
        )
        degree, source, detail = np.split(int16_bytes.view(np.int16), [atoms, atoms + bonds])
        symbols, bond_code = np.split(uint8_values, [2 * atoms])
        return PackedMolecule(
            symbols.reshape(atoms, 2),
            degree,
            source,
            bond_code,
            detail.view(np.uint16),
            float32_bytes.view(np.float32) if self.num_descriptors else None,
        )


def pack_molecule(key: str, projector: int, graph: PackedMolecule) -> Tensor:
    """Serialize a molecule.

    Args:
        key: Canonical SMILES, or SMILES as written, that identifies the molecule.
        projector: Index in the checkpoint's projector bank.
        graph: Graph of the molecule.

    Returns:
        ``[32 + 4 descriptors + 6 atoms + 3 bonds]`` uint8.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    descriptors = np.empty(0, np.float32) if graph.descriptors is None else graph.descriptors
    sizes = len(graph.degree), len(graph.source), len(descriptors)
    # Larger types come first, so that every array is aligned.
    arrays = (descriptors, graph.degree, graph.source, graph.detail, graph.atoms, graph.bond_code)
    header = _HEADER.pack(*struct.unpack("=2q", digest), projector, *sizes)
    return torch.frombuffer(
        bytearray(b"".join((header, *(array.tobytes() for array in arrays)))), dtype=torch.uint8
    )


def unpack_molecule(row: Tensor) -> PackedRow:
    """Deserialize the header of a molecule that `pack_molecule` wrote.

    Args:
        row: ``[32 + 4 descriptors + 6 atoms + 3 bonds]`` uint8.
    """
    header = row[: _HEADER.size].numpy().tobytes()
    *molecule_id, projector, atoms, bonds, descriptors = _HEADER.unpack(header)
    return PackedRow(tuple(molecule_id), projector, atoms, bonds, descriptors, row[_HEADER.size :])
