"""Molecule kernels: one package per operation, each with a reference in ``naive.py``.

They depend on torch and triton only. Every operation takes a *ragged* batch: the atoms or tokens of
all molecules are concatenated without padding, and offsets give each molecule's first row.
"""

from moltc_kernels.types import BondCsr, ShapeError

__all__ = ["BondCsr", "ShapeError"]
