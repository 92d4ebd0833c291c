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
    from rich.console import Console

    from moltc_vllm.deploy.configuration import ServeConfiguration
    from moltc_vllm.deploy.deployment import Deployment

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def deploy(
    config: Annotated[
        Path, typer.Argument(help="Ray Serve configuration (YAML), see serve_configs/.")
    ],
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster, or `auto` for this machine's cluster. "
            "Default: start a private cluster on this machine."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port of the server; overrides the configuration.")
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(help="Number of CPUs that the private cluster schedules. Default: all."),
    ] = None,
    haproxy: Annotated[
        bool | None,
        typer.Option(
            "--haproxy/--no-haproxy",
            help="Receive requests with HAProxy instead of Serve's own proxy. Default: HAProxy, "
            "unless the configuration has a request router.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check the configuration and vLLM's flags, and deploy nothing."
        ),
    ] = False,
) -> None:
    """Deploy replicas, wait until all of them answer, and run until Ctrl-C or SIGTERM.

    To deploy on a cluster that outlives the command, use `serve deploy` or KubeRay with the same
    configuration.
    """
    if importlib.util.find_spec("ray") is None:
        fail("`moltc deploy` needs Ray: pip install 'moltc-vllm[ray]'")
    from rich.console import Console

    from moltc_vllm.deploy.cluster import ClusterError, prepare_ray_environment

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if address is None and not check:
            prepare_ray_environment()  # the imports below load Ray, which then reads it
    except ClusterError as error:
        fail(str(error), code=1)
    from moltc_vllm.deploy.configuration import ConfigurationError, read_configuration
    from moltc_vllm.deploy.deployment import Deployment

    try:
        configuration = read_configuration(config).with_port(port)
        deployment = Deployment(configuration, address=address, haproxy=haproxy, cpus=cpus)
    except ConfigurationError as error:
        fail(str(error))
    if check:
        _check_flags(configuration)
        console.print(f"{config.name} is valid; its server would be at {configuration.url}")
        return
    _run_until_signal(deployment, console)


def _run_until_signal(deployment: Deployment, console: Console) -> None:
    """Start the deployment, keep it until a stop signal arrives, and stop it."""
    from moltc_vllm.deploy.cluster import ClusterError
    from moltc_vllm.deploy.deployment import DeploymentError

    for stop_signal in _STOP_SIGNALS:
        signal.signal(stop_signal, _raise_keyboard_interrupt)
    try:
        deployment.start()
        console.print(f"Ray is at {deployment.address}")
        url = deployment.configuration.url
        console.print(f"all replicas answer at {url}/v1; press Ctrl-C to stop them")
        deployment.wait()
        fail("`serve run` exited; see its output for the reason", code=1)
    except (ClusterError, DeploymentError) as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        console.print("stopping after the requests in flight are finished")
    finally:
        for stop_signal in _STOP_SIGNALS:
            signal.signal(
                stop_signal, signal.SIG_IGN
            )  # another Ctrl-C must not interrupt the clean-up
        deployment.stop()


def _check_flags(configuration: ServeConfiguration) -> None:
    """Parse each application's flags with vLLM's parser, as its replicas will.

    This takes seconds, because it imports vLLM.
    """
    from moltc_vllm.models.adapters import AdapterError
    from moltc_vllm.plugin.launcher import parse, prepare_environment

    if importlib.util.find_spec("vllm") is None:  # only the replicas' machines need vLLM
        typer.echo("vLLM is not installed here, so its flags were not checked", err=True)
        return
    prepare_environment()
    names, settings = configuration.application_names, configuration.replica_settings
    for name, replica in zip(names, settings, strict=True):
        try:
            parse(replica.serve_arguments(Path("encoded")))
        except SystemExit:  # vLLM's parser has printed the reason
            fail(f"{configuration.path.name}: vLLM refuses the flags of {name}")
        except (AdapterError, ValueError) as error:
            fail(f"{configuration.path.name}: {name}: {error}")


def _raise_keyboard_interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
