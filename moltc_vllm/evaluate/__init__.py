"""How good a model's answers are: measured data in, metrics out, over any engine."""

from moltc_vllm.evaluate.asking import ask
from moltc_vllm.evaluate.orders import BothOrders
from moltc_vllm.evaluate.scoring import Calibration, Counts, Evaluation, Metric, evaluate

__all__ = [
    "BothOrders",
    "Calibration",
    "Counts",
    "Evaluation",
    "Metric",
    "ask",
    "evaluate",
]
