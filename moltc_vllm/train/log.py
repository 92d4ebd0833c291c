"""Log of a training run: JSON lines and curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOG_FILE, CURVES_FILE = "log.jsonl", "loss.png"


class TrainingLog:
    """Writer of a run's ``log.jsonl``, whose lines all have a ``step``.

    Args:
        folder: Folder of the run.
        step: Number of finished steps; lines of later steps, which a resumed run writes again,
            are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG_FILE
        kept = [line for line in read_log(folder) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, **content: Any) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **content}) + "\n")


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a run's log; nothing if the run has no log."""
    path = folder / LOG_FILE
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # the process was killed while it wrote this line


def draw_curves(folder: Path) -> Path:
    """Plot loss and validation metrics of a run to ``loss.png`` and return its path."""
    from matplotlib.figure import Figure

    curves = _curves(folder)
    columns = min(len(curves), 3) or 1
    rows = -(-len(curves) // columns) or 1
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    for position, (name, points) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(rows, columns, position)
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        axes.set_title(f"{name} (valid)" if ":" in name else "training loss", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    path = folder / CURVES_FILE
    figure.savefig(path, dpi=120)
    return path


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return points of (step, value) by name: the loss, then one metric of each data set."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in read_log(folder):
        if "loss" in line:
            curves.setdefault("loss", []).append((line["step"], line["loss"]))
        for name, metrics in line.get("valid", {}).items():
            for metric in metrics:
                if _is_plotted(metric, metrics):
                    points = curves.setdefault(f"{name}: {metric}", [])
                    points.append((line["step"], metrics[metric]))
    return curves


def _is_plotted(metric: str, metrics: Mapping[str, float]) -> bool:
    return metric in ("rmse", "auroc") or (metric == "accuracy" and "auroc" not in metrics)
