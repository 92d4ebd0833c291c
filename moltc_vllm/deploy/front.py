"""Deprecated alias of `moltc_vllm.deploy.proxy_middleware`.

Clusters that were started with ``moltc_vllm.deploy.front:middlewares`` in their environment still
find their middleware here.
"""

from moltc_vllm.deploy.proxy_middleware import middlewares
from moltc_vllm.utils.deprecation import warn_renamed

__all__ = ["middlewares"]

warn_renamed("module moltc_vllm.deploy.front", "moltc_vllm.deploy.proxy_middleware")
