"""Upper bounds on the size of a molecule."""

from __future__ import annotations

from dataclasses import dataclass

from moltc_vllm.chem.graph import MAX_ATOMS

_MOLBLOCK_HEADER_CHARACTERS = 4096
_MOLBLOCK_CHARACTERS_PER_ATOM = 512
"""An atom with its bonds takes about 100 characters; explicit hydrogens triple that."""


@dataclass(frozen=True, slots=True)
class MoleculeLimits:
    """Bounds on the size of a molecule from user input.

    Args:
        max_atoms: Largest number of graph atoms, without the hydrogens that RDKit makes implicit.
        max_characters: Largest length of a SMILES, both as given and in canonical form.

    Raises:
        ValueError: If a bound is not positive, or ``max_atoms`` is more than a `MolGraph` holds.
    """

    max_atoms: int = 512
    max_characters: int = 2048

    def __post_init__(self) -> None:
        if not 1 <= self.max_atoms <= MAX_ATOMS:
            raise ValueError(f"max_atoms is {self.max_atoms}, expected 1 to {MAX_ATOMS}")
        if self.max_characters < 1:
            raise ValueError(f"max_characters is {self.max_characters}, expected 1 or more")

    @property
    def max_molblock_characters(self) -> int:
        """Largest length of a molblock, derived from ``max_atoms``."""
        return _MOLBLOCK_HEADER_CHARACTERS + _MOLBLOCK_CHARACTERS_PER_ATOM * self.max_atoms


DEFAULT_LIMITS = MoleculeLimits()
