"""How large a molecule may be."""

from __future__ import annotations

from dataclasses import dataclass

from moltc_vllm.chem.graph import MAX_ATOMS

_MOLBLOCK_HEADER_CHARACTERS = 4096
_MOLBLOCK_CHARACTERS_PER_ATOM = 512
"""An atom and its bonds are about 100 characters; hydrogens, which molblocks list, triple that."""


@dataclass(frozen=True, slots=True)
class MoleculeLimits:
    """Bounds on a molecule that comes from outside.

    Args:
        max_atoms: Atoms of the graph, i.e. without the hydrogens that RDKit makes implicit.
        max_characters: Length of a SMILES, as given and in its canonical form.

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
        """Length of a molblock; it follows from ``max_atoms``."""
        return _MOLBLOCK_HEADER_CHARACTERS + _MOLBLOCK_CHARACTERS_PER_ATOM * self.max_atoms


DEFAULT_LIMITS = MoleculeLimits()
