"""Names of the standardization modes, for modules that must not import RDKit."""

from __future__ import annotations

from typing import Final, Literal, get_args

Standardization = Literal["as-drawn", "cleanup", "parent"]
"""How molecules are standardized before they are encoded, see `moltc_vllm.chem.standardize`."""

STANDARDIZATIONS: Final[tuple[Standardization, ...]] = get_args(Standardization)
"""All modes; the first one changes nothing."""

AS_DRAWN: Final[Standardization] = STANDARDIZATIONS[0]


def check_standardization(mode: str) -> Standardization:
    """Return a mode.

    Raises:
        ValueError: If there is no such mode.
    """
    for known in STANDARDIZATIONS:
        if mode == known:
            return known
    raise ValueError(f"standardization {mode!r} is not one of {', '.join(STANDARDIZATIONS)}")
