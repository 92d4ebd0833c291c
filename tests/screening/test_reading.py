"""Tables as people have them: one row out for each row in, whatever is in it."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from rdkit import Chem

from moltc_vllm.tables.table_readers import (
    EMPTY,
    LONGEST_LINE,
    Record,
    TableError,
    open_table,
)


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path, kind=None):
    table = open_table(path, kind)
    return table.columns, list(table.records())


def errors(path):
    return [record.error for record in rows(path)[1]]


GOOD = [Record(("CCO", "ethanol")), Record(("O", "water"))]


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
def test_forms_of_the_same_table(tmp_path, name, content):
    columns, found = rows(written(tmp_path, name, content))
    assert columns == ("smiles", "name")
    assert found == GOOD


def test_parquet(tmp_path):
    table = pa.table({"smiles": ["CCO", None, "O"], "id": [3, 4, 5]})
    pa_parquet.write_table(table, tmp_path / "a.parquet")
    columns, found = rows(tmp_path / "a.parquet")
    assert columns == ("smiles", "id")
    assert found == [Record(("CCO", "3")), Record(("", "4")), Record(("O", "5"))]


def test_a_table_can_be_read_again(tmp_path):
    table = open_table(written(tmp_path, "a.smi", "CCO ethanol\nO water\n"))
    assert list(table.records()) == list(table.records()) == GOOD


def test_bad_rows_are_rows(tmp_path):
    long = b"C" * (10 * LONGEST_LINE)
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
    columns, found = rows(written(tmp_path, "a.csv", b"\n".join(lines)))
    assert columns == ("smiles", "name")
    assert found == [
        Record(("CCO", "ethanol")),
        Record((), EMPTY),
        Record((), "the row has 3 columns, the header 2"),
        Record((), "the row has 1 columns, the header 2"),
        Record((), "byte 9 of the line is 0xe4, not UTF-8"),
        Record((), f"the line has {len(long) + 5:,} bytes, more than {LONGEST_LINE:,}"),
        Record(("CCCC", 'a "butane", it is')),
        Record((), "the row cannot be read: unexpected end of data"),
        Record(("O", "water")),
    ]


def test_a_cell_over_some_lines(tmp_path):
    content = 'smiles,name\nCCO,"spirit\nof wine"\nO,"never closed\nC,methane\n'
    _, found = rows(written(tmp_path, "a.csv", content))
    assert found[0] == Record(("CCO", "spirit\nof wine"))
    assert found[1].error.startswith("the row cannot be read")
    assert found[2:] == [Record(("C", "methane"))]


def test_a_stray_quote_takes_no_other_row(tmp_path):
    """Not even far in front of the next quote."""
    lines = ["smiles,name", 'CCO,"oops', *(f"C,m{n}" for n in range(200)), 'O,"water"']
    _, found = rows(written(tmp_path, "a.csv", "\n".join(lines)))
    assert len(found) == 202
    assert [record.error is None for record in found].count(False) == 1


def test_sdf(tmp_path):
    def block(smiles, name, fields):
        molecule = Chem.MolFromSmiles(smiles)
        molecule.SetProp("_Name", name)
        data = "".join(f">  <{key}>\n{value}\n\n" for key, value in fields.items())
        return f"{Chem.MolToMolBlock(molecule)}{data}$$$$\n"

    content = (
        block("OCC", "ethanol", {"logP": "-0.3", "smiles": "wrong"})
        + "rubbish\n$$$$\n"
        + block("O", "water", {"id": "1\n2"})
        + block("C", "methane", {}).replace("$$$$\n", "")
    )
    columns, found = rows(written(tmp_path, "a.sdf", content))
    assert columns == ("smiles", "name", "logP", "id")
    assert found == [
        Record(("CCO", "ethanol", "-0.3", "")),
        Record((), "the molecule block has no end (M  END)"),
        Record(("O", "water", "", "1\n2")),
        Record(("C", "methane", "", "")),
    ]


def test_an_index_that_pandas_wrote(tmp_path):
    columns, found = rows(written(tmp_path, "a.csv", ",smiles,name\n0,C,methane\n1,O,water\n"))
    assert columns == ("column_1", "smiles", "name")
    assert found == [Record(("0", "C", "methane")), Record(("1", "O", "water"))]


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
def test_a_file_that_is_none_is_one_line(tmp_path, name, content, reason):
    with pytest.raises(TableError) as error:
        open_table(written(tmp_path, name, content))
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(TableError, match=r"^none\.csv cannot be read: No such file"):
        open_table(tmp_path / "none.csv")


def test_memory_does_not_grow_with_a_line(tmp_path):
    """A gigabyte without a line end is one bad row, and is not kept."""
    import tracemalloc

    path = tmp_path / "a.smi"
    with path.open("wb") as file:
        file.write(b"CCO ethanol\n")
        file.seek(200 << 20, 1)
        file.write(b"\nO water\n")
    table = open_table(path)
    tracemalloc.start()
    found = list(table.records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record.error is None for record in found] == [True, False, True]
    assert peak < 16 << 20


def test_an_empty_line_in_a_quoted_cell_is_of_the_cell(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('smiles,note\nCCO,"one\n\ntwo"\nCC,x\n')
    assert list(open_table(path).records()) == [(("CCO", "one\n\ntwo"), None), (("CC", "x"), None)]


def test_two_forgotten_quotes_are_two_bad_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('smiles,note\nCCO,"one\nCC,x\nC,"two\nCCC,y\n')
    found = list(open_table(path).records())
    assert [record.cells for record in found] == [(), ("CC", "x"), (), ("CCC", "y")]


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
    assert second.error.startswith("a cell is no text: ")
    assert third.cells == () or third.cells[0] == ""


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("smiles\nCCO\n", ("smiles",)),
        ("\n\nsmiles;name\nCCO;x\n", ("smiles", "name")),
        ("CCO ethanol\n", ("smiles", "name")),
    ],
)
def test_a_file_without_an_ending_is_seen_through(tmp_path, text, columns):
    path = tmp_path / "stdin"
    path.write_text(text)
    table = open_table(path)
    assert table.columns == columns
    assert next(table.records()).cells[0] == "CCO"


def test_an_sdf_without_ends_is_one_bad_row(tmp_path):
    path = tmp_path / "a.sdf"
    path.write_text("name\n" + "x" * 1000 + "\n" + "y" * 100_000 + "\n" * 2)
    (record,) = open_table(path).records()
    assert "no end" in record.error
    path.write_text(("z" * 100_000 + "\n") * 50)
    (record,) = open_table(path).records()
    assert "the block has more than" in record.error
