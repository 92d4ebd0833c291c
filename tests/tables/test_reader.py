"""Opening files: the format is detected, and a file that cannot be read is a one-line error."""

import gzip

import pyarrow as pa
import pytest

from moltc_vllm.tables import Record, TableError, open_table, read_columns
from moltc_vllm.tables.formats import FORMATS, detect_format

ROWS = [("CCO", "ethanol"), ("O", "water")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "smiles,name\nCCO,ethanol\nO,water\n"),
        ("a.csv", "smiles;name\nCCO;ethanol\nO;water"),
        ("a.tsv", "smiles\tname\r\nCCO\tethanol\r\nO\twater\r\n"),
        ("a.csv", b'\xef\xbb\xbfsmiles,name\nCCO,"ethanol"\nO,water\n\n\n'),
        ("noname", "smiles,name\nCCO,ethanol\nO,water\n"),
        ("a.smi", "CCO ethanol\nO\twater\n"),
        ("noname", "CCO ethanol\nO water\n"),
        ("a.csv.gz", gzip.compress(b"smiles,name\nCCO,ethanol\nO,water\n", mtime=0)),
        ("packed", gzip.compress(b"CCO ethanol\nO water\n", mtime=0)),
        ("a.smi.zst", pa.compress(b"CCO ethanol\nO water\n", "zstd", asbytes=True)),
    ],
)
def test_same_table_in_every_format(write, name, content):
    path = write(name, content)
    table = open_table(path)
    assert table.columns == ("smiles", "name")
    assert list(table.records()) == [Record(cells) for cells in ROWS]
    assert list(read_columns(path, ["smiles", "name"])) == ROWS


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("smiles\nCCO\n", ("smiles",)),
        ("\n\nsmiles;name\nCCO;x\n", ("smiles", "name")),
        ("CCO ethanol\n", ("smiles", "name")),
    ],
)
def test_format_without_suffix_is_detected_by_content(write, text, columns):
    table = open_table(write("stdin", text))
    assert table.columns == columns
    assert next(table.records()).cells[0] == "CCO"


@pytest.mark.parametrize("file_format", FORMATS, ids=lambda file_format: file_format.name)
def test_format_is_detected_by_suffix(tmp_path, file_format):
    for suffix in file_format.suffixes:
        for compression in ("", ".gz", ".zst"):
            path = tmp_path / f"a.csv{suffix.upper()}{compression}"
            assert detect_format(path, b"smiles,name\n") is file_format


def test_table_can_be_read_again(write):
    table = open_table(write("a.smi", "CCO ethanol\nO water\n"))
    assert list(table.records()) == list(table.records()) == [Record(cells) for cells in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", "a.csv has no header: it is empty"),
        ("a.csv", "smiles,smiles\nC,C\n", "a.csv has more than one column 'smiles'"),
        ("a.csv", "smiles,name\nC,x\n".encode("utf-16"), "a.csv is UTF-16 text"),
        ("a.csv.gz", b"\x1f\x8bnothing", "a.csv.gz cannot be read: "),
        ("a.parquet", b"nothing", "a.parquet cannot be read: "),
    ],
)
def test_unreadable_file_is_one_line(write, name, content, reason):
    with pytest.raises(TableError) as error:
        open_table(write(name, content))
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TableError, match=r"^none\.csv cannot be read: No such file"):
        open_table(tmp_path / "none.csv")
    with pytest.raises(TableError, match=r"^none\.csv cannot be read: No such file"):
        read_columns(tmp_path / "none.csv", ["smiles"])


def test_truncated_file_is_an_error_while_reading(write):
    content = gzip.compress(b"smiles\n" + b"C\n" * 100_000)
    path = write("a.csv.gz", content[:-9])
    for read in (lambda: open_table(path).records(), lambda: read_columns(path, ["smiles"])):
        with pytest.raises(TableError, match=r"^a\.csv\.gz cannot be read: "):
            list(read())


def test_read_columns_names_missing_and_repeated_columns_at_once(write):
    path = write("a.csv", "smiles,x,x\nC,1,2\n")
    assert list(read_columns(path, ["smiles"])) == [("C",)]
    with pytest.raises(TableError, match=r"^a\.csv has no column 'y'; there are smiles, x, x$"):
        read_columns(path, ["smiles", "y"])
    with pytest.raises(TableError, match=r"^a\.csv has more than one column 'x'"):
        read_columns(path, ["x"])


def test_read_columns_needs_a_column(write):
    with pytest.raises(ValueError, match=r"a\.csv: name at least one column"):
        read_columns(write("a.csv", "smiles,name\nCCO,ethanol\n"), [])
