"""Neighbour sums of the graph encoder."""

from moltc_kernels.aggregate.naive import aggregate

__all__ = ["aggregate"]
