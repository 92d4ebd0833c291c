"""Fixtures that run vLLM in the test's own process."""

import gc
import os

import pytest

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


@pytest.fixture(scope="module")
def offline():
    """Return a function that starts `vllm.LLM` and reuses it within a module."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    from moltc_vllm.plugin.launcher import engine_defaults

    engines = {}

    def shut_down():
        engines.clear()
        gc.collect()
        cleanup_dist_env_and_memory()

    def start(folder, **arguments):
        key = (folder, tuple(sorted(arguments.items())))
        if key not in engines:
            shut_down()
            engines[key] = LLM(model=str(folder), **{**engine_defaults(), **arguments})
        return engines[key]

    yield start
    shut_down()
