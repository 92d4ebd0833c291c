"""Measured data: data sets, their rows and splits, and the instructions built from them."""

from moltc_vllm.data.columns import COLUMNS
from moltc_vllm.data.dataset import Dataset, Row, read_dataset
from moltc_vllm.data.files import DataError

__all__ = ["COLUMNS", "DataError", "Dataset", "Row", "read_dataset"]
