"""`moltc_vllm.screen`: molecules as Python has them, answers as rows or as a table."""

import subprocess
import sys

import pyarrow as pa
import pytest

import moltc_vllm
from moltc_vllm.screening.manifest import ManifestError
from tests.screening.engines import FailingEngine, HashEngine, answer_of


def test_two_lists():
    left, right = ["CCO", "C1CC", "CCN"], ["O", "CO"]
    found = moltc_vllm.screen("solvation", left=left, right=right, engine=HashEngine())
    assert len(found) == 6
    rows = sorted(found, key=lambda row: row["row"])
    assert [(row["left_smiles"], row["right_smiles"]) for row in rows] == [
        (first, second) for first in left for second in right
    ]
    assert [row["status"] for row in rows] == ["ok"] * 2 + ["bad_molecule"] * 2 + ["ok"] * 2
    assert "molecule 'C1CC'" in rows[2]["error"]
    folder = found.folder
    assert folder.is_dir()
    del found
    assert not folder.exists()


def test_pairs_into_a_table_and_further_columns(tmp_path):
    engine = HashEngine()
    pairs = [("CCO", "O"), ("CC", "O")]
    found = moltc_vllm.screen("ddi", pairs, engine=engine, both_orders=True)
    table = found.to_arrow()
    assert table["smiles_1"].to_pylist() == ["CCO", "CC"]
    assert sorted(engine.asked) == sorted([*pairs, *(pair[::-1] for pair in pairs)])
    assert found.to_arrow().equals(table)  # and nothing is asked again
    assert len(engine.asked) == 4
    given = pa.table({"smiles": ["C", "CC"], "name": ["methane", "ethane"]})
    found = moltc_vllm.screen("ddi", left=given, how="triangle", engine=HashEngine())
    (row,) = found
    assert (row["left_name"], row["right_name"]) == ("methane", "ethane")
    assert list(moltc_vllm.screen("ddi", [], engine=HashEngine())) == []
    assert moltc_vllm.screen("ddi", [], engine=HashEngine()).to_arrow().num_rows == 0


def test_a_folder_is_gone_on_with(tmp_path, tiny, tiny_llama):
    (tmp_path / "left.smi").write_text("CCO\nCC\nCCC\n")
    options = {"left": tmp_path / "left.smi", "right": ["O", "CO"], "part_rows": 2}
    options |= {"out": tmp_path / "out", "model": tiny}
    found = moltc_vllm.screen("solvation", **options, engine=HashEngine())
    rows = iter(found)
    seen = [next(rows) for _ in range(2)]
    rows.close()  # lets the folder go, as the end of a process does
    written = len(list((tmp_path / "out").glob("part-*.parquet")))
    assert written < 3
    engine = HashEngine()
    found = moltc_vllm.screen("solvation", **options, engine=engine)
    again = list(found)
    assert again[:2] == seen
    assert len(again) == 6
    assert len(engine.asked) == 6 - 2 * written
    summary = found.finish()
    assert summary.rows == 6
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(ManifestError, match=r"another screen: model\.name"):
        moltc_vllm.screen("solvation", **{**options, "model": tiny_llama}, engine=HashEngine())


def test_errors_are_asked_again(tmp_path, tiny):
    engine = FailingEngine()
    both = {"left": ["CCO", "CO", "CN"], "right": ["O", "CC"], "out": tmp_path / "out"}

    def statuses(**more):
        screened = moltc_vllm.screen("solvation", **both, engine=engine, model=tiny, **more)
        return screened.to_arrow()["status"].to_pylist()

    assert statuses().count("error") == 2
    engine.failing = False
    assert statuses().count("error") == 2
    assert statuses(retry_errors=True) == ["ok"] * 6
    assert engine.places[6:] == [0, 3]


def test_a_true_engine(tiny):
    """Plain torch on a random model: the answers are those of the engine itself."""
    (row,) = moltc_vllm.screen("ddi", [("CCO", "O")], model=tiny, engine="torch")
    assert row["status"] == "ok"
    assert row["label"] in ("interaction", "no_interaction")


def test_random_order_and_limit():
    left = ["C" * n for n in range(1, 30)]
    options = {"left": left, "right": ["O", "N"], "limit": 10, "order": "random"}
    first = moltc_vllm.screen("solvation", **options, engine=HashEngine()).to_arrow()
    same = moltc_vllm.screen("solvation", **options, engine=HashEngine()).to_arrow()
    other = moltc_vllm.screen("solvation", **options, seed=1, engine=HashEngine()).to_arrow()
    assert first.equals(same)
    assert sorted(first["row"].to_pylist()) != sorted(other["row"].to_pylist())
    assert len(set(first["row"].to_pylist())) == 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pairs": [("C", "O", "N")]}, "is not 2 SMILES"),
        ({"left": ["C"]}, "a screen needs a file of pairs"),
        ({"pairs": [("C", "O")], "out": "somewhere"}, "name the model of an open engine"),
        ({"pairs": "nowhere.csv"}, "nowhere.csv cannot be read"),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments, said):
    with pytest.raises(ValueError, match=said):
        moltc_vllm.screen("ddi", **arguments, engine=HashEngine())


def test_answers_are_those_of_the_pairs():
    from moltc_vllm.tasks import get_task

    task = get_task("solvation")
    for row in moltc_vllm.screen("solvation", [("CCO", "O"), ("C", "O")], engine=HashEngine()):
        expected = answer_of(task, (row["smiles_1"], row["smiles_2"]))
        assert row["value"] == expected.value
        assert (row["low"], row["high"]) == expected.interval


def test_the_name_is_found_and_others_are_not():
    code = "import moltc_vllm; print(callable(moltc_vllm.screen), hasattr(moltc_vllm, 'nothing'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]


def test_a_second_reading_ends_the_first():
    found = moltc_vllm.screen(
        "solvation", left=["C", "CC", "CCC"], right=["O"], part_rows=1, engine=HashEngine(window=1)
    )
    rows = iter(found)
    next(rows)
    assert found.to_arrow().num_rows == 3
    assert len(list(found)) == 3


def test_a_missing_molecule_is_a_row():
    rows = list(
        moltc_vllm.screen("ddi", left=["C", None, float("nan")], right=["O"], engine=HashEngine())
    )
    assert [row["status"] for row in rows] == ["ok", "bad_molecule", "bad_molecule"]
    rows = list(moltc_vllm.screen("ddi", [("C", None), ("C", "O")], engine=HashEngine()))
    assert sorted(row["status"] for row in rows) == ["bad_molecule", "ok"]
