"""Replicas: Ray Serve online, Ray Data offline. The only room that imports Ray.

``moltc_vllm.deploy:build`` is what a Ray Serve configuration names as its ``import_path``.
"""

from moltc_vllm.deploy.application import build

__all__ = ["build"]
