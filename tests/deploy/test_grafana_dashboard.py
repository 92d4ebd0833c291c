"""The Grafana dashboard refers to metrics that exist."""

import json
import re
from pathlib import Path

from moltc_vllm.plugin import metrics

PATH = Path(__file__).parents[2] / "serve_configs" / "grafana" / "moltc.json"
DASHBOARD = json.loads(PATH.read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
NAMES = {name for text in EXPRESSIONS for name in re.findall(r"\bray_\w+", text)}


def test_dashboard_shows_every_molecule_counter():
    counters = {
        f"ray_{counter._name}_total"
        for counter in vars(metrics).values()
        if isinstance(counter, metrics.Counter)
    }
    assert {name for name in NAMES if name.startswith("ray_moltc_")} == counters


def test_other_metrics_are_from_vllm_or_serve():
    assert all(name.startswith(("ray_moltc_", "ray_vllm_", "ray_serve_")) for name in NAMES)


def test_panels_do_not_overlap():
    positions = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(positions)) == len(positions)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(positions)
