"""``moltc deploy``: replicas of the server on a Ray cluster."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from moltc_vllm.cli.messages import fail


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
    check: Annotated[bool, typer.Option("--check", help="Only read the configuration.")] = False,
) -> None:
    """Deploy replicas, wait until they answer, and keep them until Ctrl-C or SIGTERM.

    On a cluster that lives on by itself use `serve deploy`, or KubeRay: the files are the same.
    """
    if importlib.util.find_spec("ray") is None:
        fail("`moltc deploy` needs Ray: pip install 'moltc-vllm[ray]'")
    from rich.console import Console

    from moltc_vllm.deploy.cluster import ClusterError
    from moltc_vllm.deploy.configuration import ConfigurationError, read_configuration
    from moltc_vllm.deploy.running import DeployError, Deployment

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        configuration = read_configuration(config)
        deployment = Deployment(
            configuration, address=address, haproxy=haproxy, port=port, cpus=cpus
        )
    except ConfigurationError as error:
        fail(str(error))
    if check:
        console.print(f"{config.name} can be deployed; clients will find it at {deployment.url}")
        return
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        deployment.start()
        console.print(f"the first replica answers at {deployment.url}/v1; Ctrl-C ends all")
        status = deployment.wait()
        if status:
            fail(f"serve run ended with {status}", code=1)
    except (ClusterError, DeployError) as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        console.print("ending: requests in flight are finished first")
    finally:
        deployment.stop()
        signal.signal(signal.SIGTERM, before)


def _as_interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
