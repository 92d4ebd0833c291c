"""Tables of molecules: CSV, TSV, SMILES, SDF and Parquet files, plain or compressed.

This package is the only code that opens such files. `open_table` keeps every row, bad rows with an
error; `read_columns` reads some columns faster, but only from files without bad rows.
"""

from moltc_vllm.tables.reader import open_table, read_columns
from moltc_vllm.tables.table import EMPTY_LINE, NAME, SMILES, Record, Table, TableError

__all__ = [
    "EMPTY_LINE",
    "NAME",
    "SMILES",
    "Record",
    "Table",
    "TableError",
    "open_table",
    "read_columns",
]
