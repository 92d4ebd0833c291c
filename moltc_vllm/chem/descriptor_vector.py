"""Vector of RDKit descriptors of a molecule, an optional input of the encoder's pooled token.

Only descriptors that RDKit computes in C++ are included, so that a vector takes about as long as
canonicalizing the molecule a few times. Their order is part of a trained model: never change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors, rdPartialCharges


class _Group(NamedTuple):
    """Descriptors that one call calculates."""

    names: tuple[str, ...]
    calculate: Callable[[Chem.Mol], Sequence[float]]


def _single(name: str, calculate: Callable[[Chem.Mol], float]) -> _Group:
    return _Group((name,), lambda mol: (calculate(mol),))


def _numbered(name: str, count: int, calculate: Callable[[Chem.Mol], Sequence[float]]) -> _Group:
    return _Group(tuple(f"{name}_{index + 1}" for index in range(count)), calculate)


def _crippen(mol: Chem.Mol) -> Sequence[float]:
    # Without hydrogens, RDKit reuses the contributions for the surface areas below, which halves
    # the time. A model can estimate the contribution of the hydrogens from the number of atoms.
    return rdMolDescriptors.CalcCrippenDescriptors(mol, includeHs=False)


def _extreme_charges(mol: Chem.Mol) -> Sequence[float]:
    rdPartialCharges.ComputeGasteigerCharges(mol)
    charges = [atom.GetDoubleProp("_GasteigerCharge") for atom in mol.GetAtoms()]
    return float(np.max(charges)), float(np.min(charges))  # NaN if any charge is unknown


_calc: Any = rdMolDescriptors  # RDKit's stubs lack some of the functions.

_GROUPS: Final = (
    _Group(("heavy_atom_log_p", "heavy_atom_molar_refractivity"), _crippen),
    _single("num_atoms", _calc.CalcNumAtoms),
    _single("formal_charge", Chem.GetFormalCharge),
    _single("tpsa", _calc.CalcTPSA),
    _single("labute_asa", _calc.CalcLabuteASA),
    _single("exact_mass", _calc.CalcExactMolWt),
    _single("fraction_csp3", _calc.CalcFractionCSP3),
    _single("hydrogen_bond_donors", _calc.CalcNumHBD),
    _single("hydrogen_bond_acceptors", _calc.CalcNumHBA),
    _single("amide_bonds", _calc.CalcNumAmideBonds),
    _single("spiro_atoms", _calc.CalcNumSpiroAtoms),
    _single("bridgehead_atoms", _calc.CalcNumBridgeheadAtoms),
    _single("kappa1", _calc.CalcKappa1),
    _single("hall_kier_alpha", _calc.CalcHallKierAlpha),
    _single("chi0n", _calc.CalcChi0n),
    _single("chi0v", _calc.CalcChi0v),
    _single("chi1n", _calc.CalcChi1n),
    _single("chi1v", _calc.CalcChi1v),
    _numbered("slogp_vsa", 12, _calc.SlogP_VSA_),
    _numbered("smr_vsa", 10, _calc.SMR_VSA_),
    _numbered("peoe_vsa", 14, _calc.PEOE_VSA_),
    _numbered("mqn", 42, _calc.MQNs_),
    _Group(("max_partial_charge", "min_partial_charge"), _extreme_charges),
)

DESCRIPTOR_NAMES: Final = tuple(name for group in _GROUPS for name in group.names)
"""Names of the descriptors, in the order of a vector."""

NUM_DESCRIPTORS: Final = len(DESCRIPTOR_NAMES)


def compute_descriptor_vector(mol: Chem.Mol) -> npt.NDArray[np.float32]:
    """Compute the descriptors of a molecule.

    Args:
        mol: Sanitized molecule. Partial charges are stored on its atoms.

    Returns:
        ``[NUM_DESCRIPTORS]``, read-only: ``sign(x) log(1 + |x|)`` of each descriptor, which keeps
        large molecules in range. A descriptor that is not defined for the molecule, e.g. the
        partial charges of a metal, is 0.
    """
    values: list[float] = []
    for group in _GROUPS:
        values.extend(_calculate(group, mol))
    vector = np.array(values)
    vector = np.sign(vector) * np.log1p(np.abs(vector))
    vector = np.where(np.isfinite(vector), vector, 0).astype(np.float32)
    vector.setflags(write=False)
    return vector


def _calculate(group: _Group, mol: Chem.Mol) -> Sequence[float]:
    try:
        return group.calculate(mol)
    except (ValueError, RuntimeError):  # RDKit's invariants raise RuntimeError.
        return [0.0] * len(group.names)
