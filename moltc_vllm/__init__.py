"""MolTC as a vLLM plugin: a language model that understands pairs of molecules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moltc_vllm._version import __version__

if TYPE_CHECKING:
    from moltc_vllm.api import predict, screen

__all__ = ["__version__", "predict", "screen"]


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, as vLLM imports this package in every process."""
    if name in ("predict", "screen"):
        from moltc_vllm import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
