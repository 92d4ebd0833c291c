"""This process as a driver of a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import signal

import ray

from moltc_vllm.deploy.cluster import ClusterError


def join(address: str | None, namespace: str | None = None) -> None:
    """Join a cluster, until `ray.shutdown`.

    Args:
        address: Of the cluster; ``"auto"``: the one that this machine belongs to.
        namespace: Of actors with a name.

    Raises:
        ClusterError: If there is none.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"there is no Ray cluster at {address}") from error
    # Ray's own handler would end this process at once.
    with contextlib.suppress(ValueError):  # not the main thread: Ray has changed nothing
        signal.signal(signal.SIGTERM, before)
