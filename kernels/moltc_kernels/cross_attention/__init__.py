"""Attention of a few queries over each molecule's own atoms."""

from moltc_kernels.cross_attention.naive import cross_attention

__all__ = ["cross_attention"]
