"""CSV and TSV: one record per row, whatever the row contains."""

import pytest

from moltc_vllm.tables import EMPTY_LINE, Record, TableError, open_table, read_columns
from moltc_vllm.tables.streams import MAX_LINE_BYTES


def read_records(path):
    return list(open_table(path).records())


def test_bad_rows_are_records_with_an_error(write):
    long = b"C" * (10 * MAX_LINE_BYTES)
    lines = [
        b"smiles,name",
        b"CCO,ethanol",
        b"",
        b"C,methane,surplus",
        b"CC",
        b"CCC,prop\xe4n",
        long + b",long",
        b'CCCC,"a ""butane"", it is"',
        b'C1CC,"never closed',
        b"O,water",
    ]
    path = write("a.csv", b"\n".join(lines))
    assert open_table(path).columns == ("smiles", "name")
    assert read_records(path) == [
        Record(("CCO", "ethanol")),
        Record((), EMPTY_LINE),
        Record((), "the row has 3 columns, the header 2"),
        Record((), "the row has 1 columns, the header 2"),
        Record((), "byte 9 of the line is 0xe4, not UTF-8"),
        Record((), f"the line has {len(long) + 5:,} bytes, more than {MAX_LINE_BYTES:,}"),
        Record(("CCCC", 'a "butane", it is')),
        Record((), "the row cannot be read: unexpected end of data"),
        Record(("O", "water")),
    ]


def test_quoted_cell_spans_lines(write):
    content = 'smiles,name\nCCO,"spirit\nof wine"\nO,"never closed\nC,methane\n'
    records = read_records(write("a.csv", content))
    assert records[0] == Record(("CCO", "spirit\nof wine"))
    assert records[1].error.startswith("the row cannot be read")
    assert records[2:] == [Record(("C", "methane"))]


def test_quoted_cell_keeps_empty_line(write):
    path = write("a.csv", 'smiles,note\nCCO,"one\n\ntwo"\nCC,x\n')
    assert read_records(path) == [(("CCO", "one\n\ntwo"), None), (("CC", "x"), None)]


def test_stray_quote_far_before_the_next_spoils_one_row(write):
    lines = ["smiles,name", 'CCO,"oops', *(f"C,m{n}" for n in range(200)), 'O,"water"']
    records = read_records(write("a.csv", "\n".join(lines)))
    assert len(records) == 202
    assert [record.error is None for record in records].count(False) == 1


def test_two_stray_quotes_spoil_two_rows(write):
    records = read_records(write("a.csv", 'smiles,note\nCCO,"one\nCC,x\nC,"two\nCCC,y\n'))
    assert [record.cells for record in records] == [(), ("CC", "x"), (), ("CCC", "y")]


def test_unnamed_index_column_gets_a_name(write):
    path = write("a.csv", ",smiles,name\n0,C,methane\n1,O,water\n")
    assert open_table(path).columns == ("column_1", "smiles", "name")
    assert read_records(path) == [Record(("0", "C", "methane")), Record(("1", "O", "water"))]
    assert list(read_columns(path, ["name", "column_1"])) == [("methane", "0"), ("water", "1")]


def test_column_names_are_stripped(write):
    path = write("a.csv", "\n smiles ; name\nC;methane\n")
    assert open_table(path).columns == ("smiles", "name")
    assert list(read_columns(path, ["name"])) == [("methane",)]


def test_read_columns_raises_at_malformed_row(write):
    path = write("a.csv", "smiles,name\nC,methane\nO\n")
    with pytest.raises(TableError, match=r"^a\.csv cannot be read: CSV parse error: Row #3: "):
        list(read_columns(path, ["smiles"]))
