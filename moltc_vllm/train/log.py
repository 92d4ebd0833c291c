"""What a run tells of itself: one JSON line per look, and curves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG_FILE, CURVES_FILE = "log.jsonl", "loss.png"


class Log:
    """The lines of a run's ``log.jsonl``; each has a ``step``.

    Args:
        folder: Of the run.
        step: Lines of later steps are taken back: a run that goes on from a state writes them anew.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG_FILE
        kept = [line for line in read_log(folder) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, **content: Any) -> None:
        """Add a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **content}) + "\n")


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a run's log; none if it has no log."""
    path = folder / LOG_FILE
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # the run was ended while it wrote


def draw_curves(folder: Path) -> Path:
    """Draw loss and validation metrics of a run as ``loss.png``."""
    from matplotlib.figure import Figure

    lines = list(read_log(folder))
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        if "loss" in line:
            curves.setdefault("loss", []).append((line["step"], line["loss"]))
        for name, metrics in line.get("valid", {}).items():
            for metric, value in metrics.items():
                if metric in ("rmse", "auroc") or ("auroc" not in metrics and metric == "accuracy"):
                    curves.setdefault(f"{name}: {metric}", []).append((line["step"], value))
    columns = min(len(curves), 3) or 1
    rows = -(-len(curves) // columns) or 1
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    for place, (name, points) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        axes.set_title(f"{name} (valid)" if ":" in name else "training loss", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    path = folder / CURVES_FILE
    figure.savefig(path, dpi=120)
    return path
