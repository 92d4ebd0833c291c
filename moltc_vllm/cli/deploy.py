"""``moltc deploy``: replicas of the server on a Ray cluster."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from moltc_vllm.cli.messages import fail

if TYPE_CHECKING:
    from moltc_vllm.deploy.configuration import Configuration


def deploy(
    config: Annotated[
        Path, typer.Argument(help="Ray Serve configuration, as those in serve_configs/.")
    ],
    address: Annotated[
        str | None,
        typer.Option(help="Of a running Ray cluster; default: one of its own on this machine."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="In place of the configuration's.")] = None,
    cpus: Annotated[
        int | None, typer.Option(help="CPUs that the own cluster shares out; default: all.")
    ] = None,
    haproxy: Annotated[
        bool | None,
        typer.Option(
            "--haproxy/--no-haproxy",
            help="Whether HAProxy takes the requests; default: if the configuration has no "
            "request router of its own.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only read the configuration, and let vLLM read its flags."),
    ] = False,
) -> None:
    """Deploy replicas, wait until all answer, and keep them until Ctrl-C or SIGTERM.

    On a cluster that lives on by itself use `serve deploy`, or KubeRay: the files are the same.
    """
    if importlib.util.find_spec("ray") is None:
        fail("`moltc deploy` needs Ray: pip install 'moltc-vllm[ray]'")
    from rich.console import Console

    from moltc_vllm.deploy.cluster import ClusterError, prepare_environment

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if address is None and not check:
            prepare_environment()  # Ray reads it when it is imported, which is now
    except ClusterError as error:
        fail(str(error), code=1)
    from moltc_vllm.deploy.configuration import ConfigurationError, read_configuration
    from moltc_vllm.deploy.deployment import DeployError, Deployment

    try:
        configuration = read_configuration(config).at(port)
        deployment = Deployment(configuration, address=address, haproxy=haproxy, cpus=cpus)
    except ConfigurationError as error:
        fail(str(error))
    url = configuration.url
    if check:
        _check_flags(configuration)
        console.print(f"{config.name} can be deployed; clients will find it at {url}")
        return
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _as_interrupt)
    try:
        deployment.start()
        console.print(f"Ray is at {deployment.address}")
        console.print(f"all replicas answer at {url}/v1; Ctrl-C ends them")
        deployment.wait()
        fail("serve run has ended", code=1)
    except (ClusterError, DeployError) as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        console.print("ending: requests in flight are finished first")
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # what is being ended is not left half way
        deployment.stop()


def _check_flags(configuration: Configuration) -> None:
    """Let vLLM read the flags, as each replica will: it takes seconds to import."""
    from moltc_vllm.models.adapters import AdapterError
    from moltc_vllm.plugin.launcher import parse, prepare_environment

    if importlib.util.find_spec("vllm") is None:  # only replicas need it
        typer.echo("vLLM is not installed here: its flags were not checked", err=True)
        return
    prepare_environment()
    for name, settings in zip(configuration.names, configuration.settings, strict=True):
        try:
            parse(settings.arguments(Path("encoded")))
        except SystemExit:  # its parser has said what is wrong
            fail(f"{configuration.path.name}: vLLM refuses the flags of {name}")
        except (AdapterError, ValueError) as error:
            fail(f"{configuration.path.name}: {name}: {error}")


def _as_interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
