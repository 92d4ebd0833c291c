"""Parquet files: cells as text, or with the types of the file."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.tables import Record, open_table, read_columns


def test_parquet_cells_are_converted_to_text(tmp_path):
    path = tmp_path / "a.parquet"
    pa_parquet.write_table(pa.table({"smiles": ["CCO", None, "O"], "id": [3, 4, 5]}), path)
    table = open_table(path)
    assert table.columns == ("smiles", "id")
    assert list(table.records()) == [
        Record(("CCO", "3")),
        Record(("", "4")),
        Record(("O", "5")),
    ]


def test_parquet_cells_of_any_type(tmp_path):
    table = pa.table(
        {
            "smiles": pa.array([b"CCO", b"\xff", None], pa.binary()),
            "when": pa.array([1, 2, 1 << 62], pa.timestamp("us")),
            "n": [1.5, None, 3.0],
            "of": [["a"], [], None],
        }
    )
    path = tmp_path / "a.parquet"
    pa_parquet.write_table(table, path)
    first, second, third = open_table(path).records()
    assert first.cells[0] == "CCO"
    assert first.cells[2:] == ("1.5", "['a']")
    assert second.error.startswith("a cell cannot be converted to text: ")
    assert third.cells == () or third.cells[0] == ""


def test_read_columns_keeps_parquet_types_and_order_of_names(tmp_path):
    table = pa.table({"smiles": ["C", None], "ids": [[1, 2], None], "n": [1.5, None]})
    pa_parquet.write_table(table, tmp_path / "a.parquet")
    rows = list(read_columns(tmp_path / "a.parquet", ["n", "ids", "smiles"]))
    assert rows == [(1.5, [1, 2], "C"), (None, None, None)]


def test_parquet_is_recognized_under_another_name_and_compressed(tmp_path):
    path = tmp_path / "a.parquet"
    pa_parquet.write_table(pa.table({"smiles": ["C"]}), path)
    renamed = tmp_path / "a.csv.gz"
    renamed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(open_table(renamed).records()) == [Record(("C",))]
    assert list(read_columns(renamed, ["smiles"])) == [("C",)]
