"""vLLM in the test's own process."""

import gc
import os

import pytest

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


@pytest.fixture(scope="module")
def offline():
    """Start `vllm.LLM` on a checkpoint; the last one ends with the module."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    from moltc_vllm.plugin.launcher import engine_defaults

    running = {}

    def end():
        running.clear()
        gc.collect()
        cleanup_dist_env_and_memory()

    def start(folder, **arguments):
        key = (folder, tuple(sorted(arguments.items())))
        if key not in running:
            end()
            running[key] = LLM(model=str(folder), **{**engine_defaults(), **arguments})
        return running[key]

    yield start
    end()
