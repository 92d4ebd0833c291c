"""Read-out of the graph encoder: a mean token and the atoms, normalised."""

from moltc_kernels.readout.naive import readout

__all__ = ["readout"]
