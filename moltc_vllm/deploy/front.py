"""Deprecated: use `moltc_vllm.deploy.proxy_middleware`."""

from moltc_vllm.deploy.proxy_middleware import middlewares
from moltc_vllm.utils.deprecation import warn_renamed

__all__ = ["middlewares"]

warn_renamed("module moltc_vllm.deploy.front", "moltc_vllm.deploy.proxy_middleware")
