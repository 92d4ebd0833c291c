"""Rows on disk: as they were read, from any place."""

import gzip
import random

import pytest

from moltc_vllm.screening.row_store import RowStore, build_row_store
from moltc_vllm.tables.table_readers import Record, TableError, open_table


@pytest.fixture
def table(tmp_path):
    lines = ["smiles,error,smiles of 2"]
    for number in range(10_000):
        lines.append("broken" if number % 7 == 3 else f"C{number},é,")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    return open_table(path)


def test_rows_come_back_from_any_place(table, tmp_path):
    told = []
    build_row_store(table, tmp_path / "store", told.append)
    assert told == [4096, 8192, 10_000]
    store = RowStore(tmp_path / "store")
    assert store.columns == ("smiles", "error", "smiles of 2")
    assert len(store) == 10_000
    whole = list(table.records())
    assert whole[3] == Record((), "the row has 1 columns, the header 3")
    assert [store[place] for place in range(10_000)] == whole
    for place in (9_999, 0, 4_095, 4_096, 8_192, 5_000, 0):
        assert store[place] == whole[place]
    for place in (-1, 10_000):
        with pytest.raises(IndexError, match=f"no row {place} among 10000"):
            store[place]
    store.close()


def test_an_empty_table(tmp_path):
    (tmp_path / "table.csv").write_text("smiles\n")
    build_row_store(open_table(tmp_path / "table.csv"), tmp_path / "store")
    store = RowStore(tmp_path / "store")
    assert len(store) == 0
    assert store.columns == ("smiles",)


def test_a_table_that_breaks_leaves_no_shelf(table, tmp_path):
    noise = random.Random(0)  # so much of it that the beginning can be read
    lines = ["smiles", *(noise.randbytes(20).hex() for _ in range(100_000))]
    table.path.write_text("\n".join(lines))
    packed = gzip.compress(table.path.read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    cut = open_table(tmp_path / "cut.csv.gz")
    with pytest.raises(TableError, match=r"^cut\.csv\.gz cannot be read"):
        build_row_store(cut, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_rows_in_any_order(tmp_path):
    lines = [f"C{n},name {n}" for n in range(10_000)]
    (tmp_path / "a.csv").write_text("\n".join(["smiles,name", *lines, "only one cell"]))
    build_row_store(open_table(tmp_path / "a.csv"), tmp_path / "a.arrow")
    store = RowStore(tmp_path / "a.arrow")
    assert store.unread == 1
    rng = random.Random(0)
    for place in [rng.randrange(10_000) for _ in range(300)] + list(range(4000, 4200)):
        assert store[place].cells == (f"C{place}", f"name {place}")
    assert store[10_000].error == "the row has 1 columns, the header 2"
