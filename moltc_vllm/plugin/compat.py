"""Where releases of vLLM and of what it loads differ or collide, and nothing else."""

from __future__ import annotations


def cli_env_setup() -> None:
    """Set the environment of vLLM's command line."""
    try:  # 0.33 and later
        from vllm.entrypoints.common.startup import cli_env_setup as setup
    except ImportError:  # 0.32; goes when 0.33 is the oldest release we support
        from vllm.entrypoints.serve.utils.api_utils import cli_env_setup as setup
    setup()


def let_vllm_scan_llvmlite() -> None:
    """Keep vLLM's search for kernels from falling over llvmlite, which numba loads.

    On CPU, vLLM 0.32 looks at ``vars(x).get("kernel")`` of everything in every loaded module
    (``vllm/triton_utils/dispatcher.py``, ``_rebind_kernels``). llvmlite's library object answers to
    any name with a function, ``__dict__`` included, and that has no ``get``: an engine could not
    start in a process that had used numba, and featurisation uses it. With an entry of that name,
    the object says what is true, that it has no attributes. Nothing of vLLM is changed.

    Upstream: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/triton_utils/dispatcher.py
    Goes when the oldest release we support checks that ``vars(x)`` is a dictionary.
    """
    try:
        from llvmlite.binding import ffi
    except ImportError:
        return
    table = getattr(ffi.lib, "_fntab", None)
    if isinstance(table, dict):
        table["__dict__"] = {}
