"""Replicated serving with Ray Serve and distributed screening with Ray Data.

This is the only package that imports Ray. ``moltc_vllm.deploy:build`` is the ``import_path`` of
Ray Serve configurations. It is imported on first access, because Ray reads its environment at
import and a process that starts a cluster has to set that environment before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moltc_vllm.deploy.application import build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from moltc_vllm.deploy.application import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
