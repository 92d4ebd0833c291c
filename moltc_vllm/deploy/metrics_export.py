"""Export of the plugin's molecule counters to Ray's metrics exporter.

``/metrics`` behind Serve covers only the machine of the replica that answers. Ray's exporter has
all replicas, with the label ``ReplicaId``. vLLM's own metrics reach it through vLLM's Ray logger.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from ray import serve
from ray.util.metrics import Counter

PREFIX = "moltc_"


class CounterSample(NamedTuple):
    """Value of a counter with one set of labels."""

    name: str
    description: str
    labels: dict[str, str]
    value: float


async def export_counters(interval_s: float) -> None:
    """Export the growth of this replica's counters periodically, until the task is canceled.

    Args:
        interval_s: Interval between exports, in seconds.
    """
    exported: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    counters: dict[str, Counter] = {}
    replica = serve.get_replica_context().replica_id.unique_id
    while True:
        await asyncio.sleep(interval_s)
        try:
            samples = read_counters()
        except (OSError, ValueError, psutil.Error):  # a process or its file has just disappeared
            continue
        for name, description, labels, value in samples:
            key = (name, tuple(sorted(labels.items())))
            increment = value - exported.get(key, 0.0)
            if increment <= 0:
                continue
            exported[key] = value
            if name not in counters:
                counters[name] = Counter(name, description, (*labels, "ReplicaId"))
            counters[name].inc(increment, {**labels, "ReplicaId": replica})


def read_counters() -> list[CounterSample]:
    """Read the molecule counters of this process and its children."""
    from prometheus_client.multiprocess import MultiProcessCollector

    process = psutil.Process()
    pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])  # shared with this machine's replicas
    files = [folder / f"counter_{pid}.db" for pid in pids]
    metrics = MultiProcessCollector.merge([str(file) for file in files if file.is_file()])
    return [
        _counter_sample(metric, sample)
        for metric in metrics
        if metric.name.startswith(PREFIX)
        for sample in metric.samples
    ]


def _counter_sample(metric: Any, sample: Any) -> CounterSample:
    labels = {name: value for name, value in sample.labels.items() if name != "pid"}
    return CounterSample(sample.name, metric.documentation, labels, sample.value)
