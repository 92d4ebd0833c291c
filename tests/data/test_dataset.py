"""Data files: the rows that are read, the rows that are left out, and errors."""

import csv
import gzip
import hashlib
import io
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moltc_vllm.data import COLUMNS, DataError, read_dataset
from moltc_vllm.tasks import TASKS, Text, get_task
from tests.paths import data_dir

SOLVATION = get_task("solvation")
HEAD = ["name", "solvent_smiles", "dg_solv_kcal_mol", "solute_smiles", "split"]
ROWS = [
    ['propanol, "1-"', "O", "-4.83", "CCCO", "test"],
    ["two\nlines", "O", "", "CC", "train"],
    ["", "CCO", "1", "", "test"],
    ["argon", "O", "2.0", "[Ar]", "valid"],
]


def as_csv(rows=ROWS, head=HEAD, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()


def as_parquet(rows=ROWS, compression="snappy"):
    table = pa.table({name: [row[index] for row in rows] for index, name in enumerate(HEAD)})
    numbers = [float(row[2]) if row[2] else math.nan for row in rows]
    smiles = pa.array([row[3] or None for row in rows]).dictionary_encode()
    table = table.set_column(2, HEAD[2], pa.array(numbers)).set_column(3, HEAD[3], smiles)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression, row_group_size=3)
    return sink.getvalue()


def compress_in_two_members(content):
    """Compress into two gzip members, as bgzip and `cat` do."""
    return gzip.compress(content[:40]) + gzip.compress(content[40:])


def write(folder, content, name="data.csv"):
    path = folder / name
    path.write_bytes(content)
    return path


def error_message(path, task=SOLVATION, **options):
    with pytest.raises(DataError) as caught:
        read_dataset(path, task, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", as_csv()),
        ("a.csv.gz", gzip.compress(as_csv())),
        ("members.csv.gz", compress_in_two_members(as_csv())),
        ("bom.csv", b"\xef\xbb\xbf" + as_csv()),
        ("crlf.csv", as_csv([ROWS[0], ["", *ROWS[1][1:]], *ROWS[2:]]).replace(b"\n", b"\r\n")),
        ("a.parquet", as_parquet()),
        ("inside.parquet", as_parquet(compression="gzip")),
        ("a.parquet.gz", gzip.compress(as_parquet())),
        ("named_wrongly", gzip.compress(as_csv())),
        ("a.tsv", as_csv(delimiter="\t")),
        ("semicolons.csv", as_csv(delimiter=";")),
        ("parquet.csv", as_parquet()),
    ],
)
def test_same_rows_in_every_format(tmp_path, name, content):
    path = write(tmp_path, content, name)
    data = read_dataset(path, SOLVATION)
    assert [(row.number, row.molecules, row.target) for row in data.rows] == [
        (1, ("CCCO", "O"), -4.83),
        (3, ("", "CCO"), 1.0),
        (4, ("[Ar]", "O"), 2.0),
    ]
    assert [(row.number, row.molecules, row.target) for row in data.not_measured] == [
        (2, ("CC", "O"), None)
    ]
    assert (data.in_split, data.measured, data.name) == (4, 3, name)
    assert data.sha256 == hashlib.sha256(content).hexdigest()


def test_line_break_in_a_cell_does_not_end_the_row(tmp_path):
    rows = [["two\nlines\n" * 20, "O", str(n), "C", "test"] for n in range(10_000)]
    data = read_dataset(write(tmp_path, as_csv(rows)), SOLVATION)
    assert [row.target for row in data.rows] == list(range(10_000))


def test_split_selects_rows_and_has_to_exist(tmp_path):
    path = write(tmp_path, as_csv())
    assert [row.number for row in read_dataset(path, SOLVATION, split="test").rows] == [1, 3]
    train = read_dataset(path, SOLVATION, split="train")
    assert (train.rows, train.in_split, train.measured) == ((), 1, 0)
    assert error_message(path, split="tset") == (
        "data.csv has no split 'tset'; there are test, train, valid"
    )
    without = write(tmp_path, as_csv([row[:4] for row in ROWS], HEAD[:4]), "b.csv")
    assert len(read_dataset(without, SOLVATION).rows) == 3
    assert "b.csv has no column 'split'; there are name, solvent_smiles" in error_message(
        without, split="test"
    )


def test_split_may_be_a_number(tmp_path):
    table = pa.table({"smiles_1": ["C"] * 3, "smiles_2": ["O"] * 3, "label": [1, 0, 1]})
    pq.write_table(table.append_column("split", pa.array([0, 1, None])), tmp_path / "x.parquet")
    data = read_dataset(tmp_path / "x.parquet", get_task("ddi"), split="0")
    assert [row.number for row in data.rows] == [1]
    assert "there are 0, 1" in error_message(tmp_path / "x.parquet", get_task("ddi"), split="2")


def test_limit_samples_rows_with_a_target(tmp_path):
    rows = [["", "O", "" if n % 3 == 0 else str(n), "C" * n, "test"] for n in range(1, 100)]
    path = write(tmp_path, as_csv(rows))

    def sample(limit, seed=0):
        data = read_dataset(path, SOLVATION, limit=limit, seed=seed)
        assert (data.in_split, data.measured) == (99, 66)
        numbers = [row.number for row in data.rows]
        assert numbers == sorted(set(numbers))
        assert all(number % 3 for number in numbers)
        assert len(data.not_measured) == (33 if limit >= 66 else 0)
        return set(numbers)

    assert sample(5) < sample(20) < sample(66) == sample(1000)
    assert len(sample(5)) == 5
    assert sample(20) != set(sorted(sample(66))[:20])
    assert sample(20, seed=1) != sample(20) == sample(20)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (as_csv(head=["name", "solvent", *HEAD[2:]]), "has no column 'solvent_smiles'; there are"),
        (as_csv(head=["split", *HEAD[1:]]), "data.csv has more than one column 'split'"),
        (b"", "data.csv has no header: it is empty"),
        (as_csv() + b"short,row\n", "Expected 5 columns, got 2"),
        (as_csv() + b"a,O,many,C,test\n", "data.csv, row 5: 'many' is not a number"),
        (as_csv() + b"a,O,-inf,C,test\n", "data.csv, row 5: '-inf' is too large for"),
        (as_csv() + b"a,\xe9,1,C,test\n", "invalid UTF8"),
        (gzip.compress(as_csv())[:-9], "Truncated"),
        (as_parquet()[:-9], "data.csv cannot be read"),
    ],
)
def test_bad_file_is_one_line(tmp_path, content, reason):
    assert reason in error_message(write(tmp_path, content), split="test")


def test_missing_file_folder_or_wrong_type_is_one_line(tmp_path):
    assert error_message(tmp_path / "gone.csv") == (
        "gone.csv cannot be read: No such file or directory"
    )
    assert "cannot be read" in error_message(tmp_path)
    table = pa.table({"solute_smiles": [1], "solvent_smiles": ["O"], "dg_solv_kcal_mol": [1.0]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert error_message(tmp_path / "x.parquet") == "x.parquet, row 1: a molecule is a text, not 1"


@pytest.mark.parametrize(
    ("cell", "target"),
    [("49", 49), ("49.0", 49), (" 7 ", 7), ("nan", None), ("", None), (" ", None)],
)
def test_label_cells_are_parsed(tmp_path, cell, target):
    head = ["smiles_1", "smiles_2", "label"]
    path = write(tmp_path, as_csv([["C", "O", cell], ["C", "O", "1"]], head))
    data = read_dataset(path, get_task("ddi_type"))
    first = min((*data.rows, *data.not_measured), key=lambda row: row.number)
    assert first.target == target
    assert not isinstance(first.target, float)


@pytest.mark.parametrize("cell", ["87", "0", "1.5", "interaction"])
def test_unknown_label_is_an_error(tmp_path, cell):
    path = write(tmp_path, as_csv([["C", "O", cell]], ["smiles_1", "smiles_2", "label"]))
    assert f"row 1: '{cell}' is not a" in error_message(path, get_task("ddi_type"))


@pytest.mark.parametrize(("values", "targets"), [([1, 0], [1, 0]), ([True, False], [1, 0])])
def test_label_types_of_a_parquet_file(tmp_path, values, targets):
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"smiles_1": ["C"] * 3, "smiles_2": ["O"] * 3, "label": [*values, None]}), path
    )
    data = read_dataset(path, get_task("ddi"))
    assert [row.target for row in data.rows] == targets
    assert [row.number for row in data.not_measured] == [3]


def test_side_effect_ids_are_replaced_by_names(tmp_path):
    task = get_task("ddi_side_effects")
    head = ["smiles_1", "smiles_2", "side_effect_ids"]
    path = write(tmp_path, as_csv([["C", "O", "1 0 1"], ["C", "N", ""]], head), "mine.csv")
    assert "no names of the ids in mine.csv: there is no mine_side_effects.csv.gz" in error_message(
        path, task
    )
    names = as_csv([["0", "nausea"], ["1", "low  blood pressure"]], ["side_effect_id", "name"])
    write(tmp_path, names, "ddi_twosides_side_effects.csv")
    data = read_dataset(path, task)
    assert [row.target for row in data.rows] == [("low blood pressure", "nausea")]
    assert len(data.not_measured) == 1
    write(tmp_path, as_csv([["0", "pain"]], ["side_effect_id", "name"]), "mine_side_effects.csv")
    assert error_message(path, task) == "mine.csv, row 1: there is no name for the id '1'"
    lists = pa.table({"smiles_1": ["C"], "smiles_2": ["O"], "side_effect_ids": [[0]]})
    pq.write_table(lists, tmp_path / "mine.parquet")
    assert read_dataset(tmp_path / "mine.parquet", task).rows[0].target == ("pain",)


def test_columns_have_a_molecule_for_each_role():
    without = set(TASKS) - set(COLUMNS)
    assert all(isinstance(TASKS[name].kind, Text) for name in without)
    for name, columns in COLUMNS.items():
        assert len(columns.molecules) == len(TASKS[name].roles)


def test_task_without_data_lists_tasks_with_data(tmp_path):
    path = write(tmp_path, as_csv())
    message = error_message(path, get_task("ask"))
    assert message.startswith("task 'ask' has no measured answers; ddi, ddi_biosnap, ddi_type, ")


@pytest.mark.parametrize(
    ("task", "file", "split", "measured", "not_measured"),
    [
        # The numbers were counted with zcat and awk.
        ("solvation", "solv_combisolv_exp", "test", 632, 0),
        ("lifetime", "chromophore_deep4chem", None, 5215, 10193),
        ("ddi", "ddi_chchminer", "test", 2972, 0),
        ("ddi_side_effects", "ddi_twosides", "valid", 3882, 0),
        ("caption", "captions", None, 6900, 0),
    ],
)
def test_counts_of_the_staged_files(task, file, split, measured, not_measured):
    data = read_dataset(data_dir() / f"{file}.csv.gz", get_task(task), split=split)
    assert len(data.rows) == data.measured == measured
    assert len(data.not_measured) == data.in_split - data.measured == not_measured
    listed = (data_dir() / "README.md").read_text()
    assert f"{data.sha256}  {file}.csv.gz" in listed
