"""SMILES files: a SMILES and an optional name per line."""

import pytest

from moltc_vllm.tables import EMPTY_LINE, Record, TableError, open_table, read_columns


def test_smiles_file_keeps_every_line_up_to_the_last_text(write):
    path = write("a.smi", "CCO ethanol\n\n  C\tmethane gas \nO\n\n\n")
    table = open_table(path)
    assert table.columns == ("smiles", "name")
    assert list(table.records()) == [
        Record(("CCO", "ethanol")),
        Record((), EMPTY_LINE),
        Record(("C", "methane gas")),
        Record(("O", "")),
    ]


def test_read_columns_skips_empty_lines(write):
    path = write("a.smi", 'CCO "ethanol"\n\n   \n  C\tmethane gas \r\nO\n')
    assert list(read_columns(path, ["name", "smiles"])) == [
        ('"ethanol"', "CCO"),
        ("methane gas", "C"),
        ("", "O"),
    ]


def test_read_columns_raises_at_bytes_that_are_no_text(write):
    with pytest.raises(TableError, match=r"^a\.smi cannot be read: .*invalid UTF8"):
        list(read_columns(write("a.smi", b"C methane\nO w\xe4ter\n"), ["smiles"]))
