"""A molecule as it travels to the engine and its worker: one row of bytes.

Every tensor of a prompt is serialised twice on its way and put in order once more, which takes
longer than what most molecules need of the model. So each molecule is a single one, and the worker
looks into those alone that it has not encoded yet.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moltc_vllm.chem import PackedMolecule
from moltc_vllm.plugin.modality.encoder_cache import Identity

_HEAD = struct.Struct("=2q3i")  # identity, projector, atoms, directed bonds


class PackedRow(NamedTuple):
    """What has arrived.

    Attributes:
        identity: 128 bits of the key's hash: the molecule's name in the worker.
        projector: Number in the checkpoint's projector bank.
        num_atoms: Of its graph.
        num_bonds: Of its graph, in both directions.
        rest: ``[4 num_atoms + 3 num_bonds]`` bytes of the graph.
    """

    identity: Identity
    projector: int
    num_atoms: int
    num_bonds: int
    rest: Tensor

    def graph(self) -> PackedMolecule:
        """The molecule itself; its arrays look into the bytes."""
        atoms, bonds = self.num_atoms, self.num_bonds
        words, small = np.split(self.rest.numpy(), [2 * (atoms + bonds)])
        degree, source = np.split(words.view(np.int16), [atoms])
        symbols, code = np.split(small, [2 * atoms])
        return PackedMolecule(symbols.reshape(atoms, 2), degree, source, code)


def pack_molecule(key: str, projector: int, graph: PackedMolecule) -> Tensor:
    """Write a molecule as bytes.

    Args:
        key: Its name: canonical SMILES, or as written.
        projector: Number in the checkpoint's projector bank.
        graph: Packed.

    Returns:
        ``[28 + 4 atoms + 3 bonds]`` uint8.
    """
    identity = hashlib.blake2b(key.encode(), digest_size=16).digest()
    sizes = len(graph.degree), len(graph.source)
    parts = (graph.degree, graph.source, graph.atoms, graph.bond_code)
    head = _HEAD.pack(*struct.unpack("=2q", identity), projector, *sizes)
    return torch.frombuffer(
        bytearray(b"".join((head, *(part.tobytes() for part in parts)))), dtype=torch.uint8
    )


def unpack_molecule(row: Tensor) -> PackedRow:
    """Read the bytes that `send` wrote; the graph is not looked at."""
    *identity, projector, atoms, bonds = _HEAD.unpack(row[: _HEAD.size].numpy().tobytes())
    return PackedRow(tuple(identity), projector, atoms, bonds, row[_HEAD.size :])
