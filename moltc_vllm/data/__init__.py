"""Measured data: what there is, how it is read, and the instructions made of it."""

from moltc_vllm.data.columns import COLUMNS
from moltc_vllm.data.files import DataError
from moltc_vllm.data.rows import Dataset, Row, read_dataset

__all__ = ["COLUMNS", "DataError", "Dataset", "Row", "read_dataset"]
