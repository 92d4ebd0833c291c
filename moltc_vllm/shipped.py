"""Deprecated alias of `moltc_vllm.checkpoints.shipped`."""

from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint
from moltc_vllm.utils.deprecation import warn_renamed

__all__ = ["NAME", "shipped_checkpoint"]

warn_renamed("module moltc_vllm.shipped", "moltc_vllm.checkpoints.shipped")
