"""Pairs in, answers out, over any engine."""

from moltc_vllm.screening.http import HttpEngine, ServerError

__all__ = ["HttpEngine", "ServerError"]
