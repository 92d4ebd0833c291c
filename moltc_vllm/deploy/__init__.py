"""Replicas: Ray Serve online, Ray Data offline. The only room that imports Ray.

``moltc_vllm.deploy:build`` is what a Ray Serve configuration names as its ``import_path``. It is
loaded when it is asked for: Ray reads its environment at import, and who starts a cluster sets it.
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
