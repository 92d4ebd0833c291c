"""How good a model's answers are: measured data in, metrics out, over any engine."""

from moltc_vllm.evaluate.asking import EngineError, ask
from moltc_vllm.evaluate.columns import COLUMNS
from moltc_vllm.evaluate.data import Dataset, Row, read_dataset
from moltc_vllm.evaluate.files import DataError
from moltc_vllm.evaluate.scoring import Calibration, Counts, Evaluation, Metric, evaluate

__all__ = [
    "COLUMNS",
    "Calibration",
    "Counts",
    "DataError",
    "Dataset",
    "EngineError",
    "Evaluation",
    "Metric",
    "Row",
    "ask",
    "evaluate",
    "read_dataset",
]
