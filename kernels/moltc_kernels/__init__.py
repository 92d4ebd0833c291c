"""Molecule kernels: a room per operation, ``naive.py`` is the truth in each.

torch and triton only. Every operation works on a *ragged* batch: molecules lie one after another,
offsets tell where each begins, nothing is padded.
"""

from moltc_kernels.types import BondCsr, ShapeError

__all__ = ["BondCsr", "ShapeError"]
