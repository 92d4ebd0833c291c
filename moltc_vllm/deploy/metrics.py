"""Our counters of molecules, told to Ray's exporter.

``/metrics`` behind Serve is about the machine of whichever replica answers. Ray's exporter has all
replicas, with the label ``ReplicaId``; vLLM's own metrics get there by its own logger.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import psutil
from ray import serve
from ray.util.metrics import Counter

PREFIX = "moltc_"


async def forward(every_s: float) -> None:
    """Do so again and again, in a replica."""
    told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    counters: dict[str, Counter] = {}
    replica = serve.get_replica_context().replica_id.unique_id
    while True:
        await asyncio.sleep(every_s)
        try:
            found = samples()
        except (OSError, ValueError, psutil.Error):  # a file or a process that has just gone
            continue
        for name, text, labels, value in found:
            key = (name, tuple(sorted(labels.items())))
            grown = value - told.get(key, 0.0)
            if grown <= 0:
                continue
            told[key] = value
            if name not in counters:
                counters[name] = Counter(name, text, (*labels, "ReplicaId"))
            counters[name].inc(grown, {**labels, "ReplicaId": replica})


def samples() -> list[tuple[str, str, dict[str, str], float]]:
    """Name, description, labels and value of each of our counters, of this replica's processes."""
    from prometheus_client.multiprocess import MultiProcessCollector

    process = psutil.Process()
    pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])  # of all replicas on this machine
    files = [folder / f"counter_{pid}.db" for pid in pids]
    merged = MultiProcessCollector.merge([str(file) for file in files if file.is_file()])
    return [
        _of(metric, sample)
        for metric in merged
        if metric.name.startswith(PREFIX)
        for sample in metric.samples
    ]


def _of(metric: Any, sample: Any) -> tuple[str, str, dict[str, str], float]:
    labels = {name: value for name, value in sample.labels.items() if name != "pid"}
    return sample.name, metric.documentation, labels, sample.value
