"""Where vLLM releases differ, and nothing else. No patch of vLLM is needed so far."""

from __future__ import annotations

try:  # 0.33 and later
    from vllm.entrypoints.common.startup import cli_env_setup
except ImportError:  # 0.32; goes when 0.33 is the oldest release we support
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

__all__ = ["cli_env_setup"]
