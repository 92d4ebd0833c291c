"""A row store returns the rows of its table at any index."""

import gzip
import random

import pytest

from moltc_vllm.screening.row_store import RowStore, build_row_store
from moltc_vllm.tables import Record, TableError, open_table


@pytest.fixture
def table(tmp_path):
    lines = ["smiles,error,smiles of 2"]
    for number in range(10_000):
        lines.append("broken" if number % 7 == 3 else f"C{number},é,")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    return open_table(path)


def test_row_store_returns_rows_by_index(table, tmp_path):
    reported = []
    build_row_store(table, tmp_path / "store", reported.append)
    assert reported == [4096, 8192, 10_000]
    store = RowStore(tmp_path / "store")
    assert store.columns == ("smiles", "error", "smiles of 2")
    assert len(store) == 10_000
    whole = list(table.records())
    assert whole[3] == Record((), "the row has 1 columns, the header 3")
    assert [store[index] for index in range(10_000)] == whole
    for index in (9_999, 0, 4_095, 4_096, 8_192, 5_000, 0):
        assert store[index] == whole[index]
    for index in (-1, 10_000):
        with pytest.raises(IndexError, match=f"row index {index} is out of range for 10000 rows"):
            store[index]
    store.close()


def test_row_store_of_empty_table(tmp_path):
    (tmp_path / "table.csv").write_text("smiles\n")
    build_row_store(open_table(tmp_path / "table.csv"), tmp_path / "store")
    store = RowStore(tmp_path / "store")
    assert len(store) == 0
    assert store.columns == ("smiles",)


def test_build_row_store_leaves_no_file_after_error(table, tmp_path):
    noise = random.Random(0)  # enough of it that the beginning can be decompressed
    lines = ["smiles", *(noise.randbytes(20).hex() for _ in range(100_000))]
    table.path.write_text("\n".join(lines))
    packed = gzip.compress(table.path.read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    cut = open_table(tmp_path / "cut.csv.gz")
    with pytest.raises(TableError, match=r"^cut\.csv\.gz cannot be read"):
        build_row_store(cut, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_row_store_reads_in_random_order(tmp_path):
    lines = [f"C{n},name {n}" for n in range(10_000)]
    (tmp_path / "a.csv").write_text("\n".join(["smiles,name", *lines, "a single cell"]))
    build_row_store(open_table(tmp_path / "a.csv"), tmp_path / "a.arrow")
    store = RowStore(tmp_path / "a.arrow")
    assert store.unreadable_rows == 1
    rng = random.Random(0)
    for index in [rng.randrange(10_000) for _ in range(300)] + list(range(4000, 4200)):
        assert store[index].cells == (f"C{index}", f"name {index}")
    assert store[10_000].error == "the row has 1 columns, the header 2"
