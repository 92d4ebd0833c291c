"""Workarounds for differences between releases of vLLM and conflicts with its dependencies."""

from __future__ import annotations


def cli_env_setup() -> None:
    """Call vLLM's function that prepares the environment of its command line."""
    try:  # 0.33 and later
        from vllm.entrypoints.common.startup import cli_env_setup as setup
    except ImportError:  # 0.32; remove when 0.33 is the oldest supported release
        from vllm.entrypoints.serve.utils.api_utils import cli_env_setup as setup
    setup()


def make_llvmlite_scannable() -> None:
    """Prevent vLLM's search for kernels from failing on llvmlite, which numba loads.

    On CPU, vLLM 0.32 evaluates ``vars(x).get("kernel")`` for every object of every loaded module
    (``vllm/triton_utils/dispatcher.py``, ``_rebind_kernels``). llvmlite's library object returns a
    function for any attribute name, ``__dict__`` included, and that function has no ``get``: an
    engine could not start in a process that had used numba, which featurization does. With an entry
    of that name ``vars`` returns an empty dictionary. vLLM itself is not patched.

    Upstream: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/triton_utils/dispatcher.py
    Remove it when the oldest supported release checks that ``vars(x)`` is a dictionary.
    """
    try:
        from llvmlite.binding import ffi
    except ImportError:
        return
    table = getattr(ffi.lib, "_fntab", None)
    if isinstance(table, dict):
        table["__dict__"] = {}
