"""`moltc_vllm.predict` and `moltc_vllm.screen` with molecules as Python objects."""

import subprocess
import sys
import warnings

import pyarrow as pa
import pytest

import moltc_vllm
from moltc_vllm.engines.factory import EngineName
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.screening.manifest import ManifestError
from moltc_vllm.tasks import PromptError, UnknownTaskError, get_task
from moltc_vllm.tasks.engine import EngineError, Pair
from tests.screening.fake_engines import FailingEngine, HashEngine, answer_of

PAIRS = [("CCO", "O"), ("C1CC", "O"), ("CC", "O"), ("CCO", "O")]


class RecordingEngine(HashEngine):
    """Keeps the arguments of the last call."""

    def submit(self, task, pairs, question=None):
        pairs = list(pairs)
        self.arguments = (task, [pair.molecules for pair in pairs], question)
        for pair in reversed(pairs):
            yield pair, get_task(task).failed("error", "nothing was generated")


def test_predict_answers_in_given_order():
    answers = moltc_vllm.predict("solvation", PAIRS, engine=HashEngine(window=3))
    task = get_task("solvation")
    assert answers == [answer_of(task, pair) for pair in PAIRS]
    assert [answer.status for answer in answers] == ["ok", "bad_molecule", "ok", "ok"]
    assert "molecule 'C1CC'" in answers[1].error


def test_predict_takes_any_iterable():
    answers = moltc_vllm.predict("ddi", (list(pair) for pair in PAIRS), engine=HashEngine())
    assert len(answers) == 4
    assert moltc_vllm.predict("ddi", [], engine=HashEngine()) == []


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_predict_answers_missing_molecule(missing):
    bad, good = moltc_vllm.predict("ddi", [("C", missing), ("C", "O")], engine=HashEngine())
    assert (bad.status, good.status) == ("bad_molecule", "ok")


def test_predict_takes_string_for_one_molecule():
    engine = RecordingEngine()
    moltc_vllm.predict("caption", ["CCO", ("CC",)], engine=engine)
    assert engine.arguments == ("caption", [("CCO",), ("CC",)], None)


def test_predict_passes_question_and_any_number_of_molecules():
    engine = RecordingEngine()
    moltc_vllm.predict("ask", ["C", ("C", "O", "N")], question="Which is larger?", engine=engine)
    assert engine.arguments == ("ask", [("C",), ("C", "O", "N")], "Which is larger?")


def test_experimental_task_warns(tmp_path):
    pairs = [("CCO", "O")]
    with pytest.warns(UserWarning, match="^ddi_side_effects is experimental: no shipped model"):
        moltc_vllm.predict("ddi_side_effects", pairs, engine=RecordingEngine())
    with pytest.warns(UserWarning, match="^ddi_side_effects is experimental"):
        moltc_vllm.screen("ddi_side_effects", pairs, engine=RecordingEngine())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moltc_vllm.predict("ddi", pairs, engine=RecordingEngine())


def test_predict_averages_both_orders():
    engine = HashEngine()
    (answer,) = moltc_vllm.predict("ddi", [("CCO", "O")], engine=engine, both_orders=True)
    assert answer.status == "ok"
    assert sorted(engine.submitted) == [("CCO", "O"), ("O", "CCO")]


def test_predict_records_error_for_forgotten_pair():
    class ForgetfulEngine(HashEngine):
        def submit(self, task, pairs, question=None):
            return (result for result in super().submit(task, pairs) if result[0].row != 2)

    answers = moltc_vllm.predict("solvation", PAIRS, engine=ForgetfulEngine())
    assert [answer.status for answer in answers] == ["ok", "bad_molecule", "error", "ok"]
    assert answers[2].error == "the engine returned no answer"


def test_predict_refuses_unexpected_answers():
    class WrongEngine(HashEngine):
        def submit(self, task, pairs, question=None):
            for _, answer in super().submit(task, pairs):
                yield Pair(7, ("C", "O")), answer

    with pytest.raises(EngineError, match="answered pair 7 twice, or the pair was never"):
        moltc_vllm.predict("solvation", PAIRS, engine=WrongEngine())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "solvatoin"}, UnknownTaskError, "solvatoin"),
        ({"pairs": [("C", "O"), ("C",)]}, PromptError, r"pairs\[1\]: .* takes 2 molecule"),
        ({"pairs": ["C"]}, PromptError, r"pairs\[0\]: .* takes 2 molecule"),
        ({"pairs": "pairs.csv"}, TypeError, "use moltc_vllm.screen for files"),
        ({"question": "Why?"}, PromptError, "use 'ask' for another"),
        ({"task": "ask", "pairs": ["C"]}, PromptError, "question"),
        ({"engine": "jax"}, ValueError, "engine must be one of vllm, torch, http, not 'jax'"),
        ({"engine": HashEngine(), "beams": 3}, ValueError, "do not apply to an engine"),
        ({"engine": HashEngine(), "model": "folder"}, ValueError, "do not apply to an engine"),
        ({"engine": "torch", "model": "nowhere"}, ValueError, "nowhere"),
    ],
)
def test_predict_refuses_wrong_arguments(arguments, error, message):
    arguments = {"task": "solvation", "pairs": PAIRS, **arguments}
    with pytest.raises(error, match=message):
        moltc_vllm.predict(**arguments)


def answers_of(engine, task, molecules):
    pairs = [Pair(index, pair) for index, pair in enumerate(molecules)]
    answers = {pair.row: answer for pair, answer in engine.submit(task, pairs)}
    return [answers[index] for index in range(len(molecules))]


def test_predict_with_torch_engine(tiny):
    answers = moltc_vllm.predict("ddi", PAIRS, model=tiny, engine="torch")
    assert [answer.status for answer in answers] == ["ok", "bad_molecule", "ok", "ok"]
    assert answers[0].label in ("interaction", "no_interaction")
    expected = answers_of(TorchEngine(tiny), "ddi", PAIRS)
    assert [answer.label for answer in answers] == [answer.label for answer in expected]


def test_predict_passes_beams_to_engine(tiny):
    answers = moltc_vllm.predict("ddi", PAIRS, model=tiny, engine="torch", beams=2)
    beam_texts = [answer.text for answer in answers_of(TorchEngine(tiny, beams=2), "ddi", PAIRS)]
    greedy_texts = [answer.text for answer in answers_of(TorchEngine(tiny), "ddi", PAIRS)]
    assert [answer.text for answer in answers] == beam_texts != greedy_texts


def test_predict_takes_engine_name(tiny):
    (answer,) = moltc_vllm.predict("ddi", [("C", "O")], model=str(tiny), engine=EngineName.torch)
    assert answer.status == "ok"


def test_screen_pairs_two_lists():
    left, right = ["CCO", "C1CC", "CCN"], ["O", "CO"]
    screened = moltc_vllm.screen("solvation", left=left, right=right, engine=HashEngine())
    assert len(screened) == 6
    rows = sorted(screened, key=lambda row: row["row"])
    assert [(row["left_smiles"], row["right_smiles"]) for row in rows] == [
        (first, second) for first in left for second in right
    ]
    assert [row["status"] for row in rows] == ["ok"] * 2 + ["bad_molecule"] * 2 + ["ok"] * 2
    assert "molecule 'C1CC'" in rows[2]["error"]


def test_screened_deletes_temporary_folder():
    screened = moltc_vllm.screen("solvation", left=["C"], right=["O"], engine=HashEngine())
    folder = screened.folder
    assert folder.is_dir()
    del screened
    assert not folder.exists()


def test_screen_gives_table_of_pairs_in_both_orders():
    engine = HashEngine()
    pairs = [("CCO", "O"), ("CC", "O")]
    screened = moltc_vllm.screen("ddi", pairs, engine=engine, both_orders=True)
    table = screened.to_arrow()
    assert table["smiles_1"].to_pylist() == ["CCO", "CC"]
    assert sorted(engine.submitted) == sorted([*pairs, *(pair[::-1] for pair in pairs)])
    assert screened.to_arrow().equals(table)
    assert len(engine.submitted) == 4  # the second table needed no answers


def test_screen_copies_columns_of_table():
    table = pa.table({"smiles": ["C", "CC"], "name": ["methane", "ethane"]})
    screened = moltc_vllm.screen("ddi", left=table, how="triangle", engine=HashEngine())
    (row,) = screened
    assert (row["left_name"], row["right_name"]) == ("methane", "ethane")


def test_screen_of_no_pairs_is_empty():
    assert list(moltc_vllm.screen("ddi", [], engine=HashEngine())) == []
    assert moltc_vllm.screen("ddi", [], engine=HashEngine()).to_arrow().num_rows == 0


def test_screen_resumes_after_closed_iteration(tmp_path, tiny, tiny_llama):
    (tmp_path / "left.smi").write_text("CCO\nCC\nCCC\n")
    options = {"left": tmp_path / "left.smi", "right": ["O", "CO"], "part_rows": 2}
    options |= {"out": tmp_path / "out", "model": tiny}
    rows = iter(moltc_vllm.screen("solvation", **options, engine=HashEngine()))
    first_rows = [next(rows) for _ in range(2)]
    rows.close()  # unlocks the folder, like the end of the process
    written = len(list((tmp_path / "out").glob("part-*.parquet")))
    assert written < 3
    engine = HashEngine()
    screened = moltc_vllm.screen("solvation", **options, engine=engine)
    all_rows = list(screened)
    assert all_rows[:2] == first_rows
    assert len(all_rows) == 6
    assert len(engine.submitted) == 6 - 2 * written
    summary = screened.finalize()
    assert summary.rows == 6
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(ManifestError, match=r"different settings: model\.name"):
        moltc_vllm.screen("solvation", **{**options, "model": tiny_llama}, engine=HashEngine())


def test_screen_retries_errors_on_request(tmp_path, tiny):
    engine = FailingEngine()
    options = {"left": ["CCO", "CO", "CN"], "right": ["O", "CC"], "out": tmp_path / "out"}

    def statuses(**more):
        screened = moltc_vllm.screen("solvation", **options, engine=engine, model=tiny, **more)
        return screened.to_arrow()["status"].to_pylist()

    assert statuses().count("error") == 2
    engine.failing = False
    assert statuses().count("error") == 2
    assert statuses(retry_errors=True) == ["ok"] * 6
    assert engine.submitted_rows[6:] == [0, 3]


def test_screen_with_torch_engine(tiny):
    (row,) = moltc_vllm.screen("ddi", [("CCO", "O")], model=tiny, engine="torch")
    assert row["status"] == "ok"
    assert row["label"] in ("interaction", "no_interaction")


def test_screen_takes_random_order_and_limit():
    left = ["C" * n for n in range(1, 30)]
    options = {"left": left, "right": ["O", "N"], "limit": 10, "order": "random"}
    first = moltc_vllm.screen("solvation", **options, engine=HashEngine()).to_arrow()
    same = moltc_vllm.screen("solvation", **options, engine=HashEngine()).to_arrow()
    other = moltc_vllm.screen("solvation", **options, seed=1, engine=HashEngine()).to_arrow()
    assert first.equals(same)
    assert sorted(first["row"].to_pylist()) != sorted(other["row"].to_pylist())
    assert len(set(first["row"].to_pylist())) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": [("C", "O", "N")]}, "row 0 must have 2 SMILES, not "),
        ({"pairs": [()]}, "row 0 must have 2 SMILES, not "),
        ({"left": ["C"]}, "a screen needs a file of pairs"),
        ({"pairs": [("C", "O")], "out": "somewhere"}, "an open engine needs its model or endpoint"),
        ({"pairs": "nowhere.csv"}, "nowhere.csv cannot be read"),
        ({"left": ["C"], "right": ["O"], "how": "all"}, "how must be one of product, zip, triang"),
    ],
)
def test_screen_refuses_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        moltc_vllm.screen("ddi", **arguments, engine=HashEngine())


def test_screen_rows_have_answers_of_their_pairs():
    task = get_task("solvation")
    for row in moltc_vllm.screen("solvation", [("CCO", "O"), ("C", "O")], engine=HashEngine()):
        expected = answer_of(task, (row["smiles_1"], row["smiles_2"]))
        assert row["value"] == expected.value
        assert (row["low"], row["high"]) == (expected.low, expected.high)
        assert (row["likeliest_low"], row["likeliest_high"]) == expected.likeliest_interval


def test_package_has_public_names_only():
    code = "import moltc_vllm as m; print(*(hasattr(m, n) for n in ('predict', 'screen', 'other')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True", "False"]


def test_screened_second_reading_ends_the_first():
    screened = moltc_vllm.screen(
        "solvation", left=["C", "CC", "CCC"], right=["O"], part_rows=1, engine=HashEngine(window=1)
    )
    rows = iter(screened)
    next(rows)
    assert screened.to_arrow().num_rows == 3
    assert len(list(screened)) == 3


def test_screen_answers_missing_molecules():
    rows = list(
        moltc_vllm.screen("ddi", left=["C", None, float("nan")], right=["O"], engine=HashEngine())
    )
    assert [row["status"] for row in rows] == ["ok", "bad_molecule", "bad_molecule"]
    rows = list(moltc_vllm.screen("ddi", [("C", None), ("C", "O")], engine=HashEngine()))
    assert sorted(row["status"] for row in rows) == ["bad_molecule", "ok"]


def test_standardization_must_be_that_of_an_open_engine():
    class CleanupEngine(HashEngine):
        standardize = "cleanup"

    pairs = [("CCO", "O")]
    for call in (moltc_vllm.predict, moltc_vllm.screen):
        with pytest.raises(ValueError, match="but the engine was opened with 'cleanup'"):
            call("solvation", pairs, engine=CleanupEngine(), standardize="parent")
        with pytest.raises(ValueError, match="but the engine was opened with None"):
            call("solvation", pairs, engine=HashEngine(), standardize="parent")
        assert len(call("solvation", pairs, engine=CleanupEngine(), standardize="cleanup")) == 1


def test_screen_has_notes_on_molecules():
    molecules = ["CCO", "[O-]c1ccccc1", "[2H]O[2H]", "CC(=O)[O-].[Na+]"]
    rows = list(moltc_vllm.screen("solvation", left=molecules, right=["O"], engine=HashEngine()))
    notes = {row["left_smiles"]: row["notes"] for row in rows}
    assert list(map(notes.get, molecules)) == [
        *(None, "solute: charged", "solute: isotope", "solute: salt: 2 fragments"),
    ]


def test_coverage_must_be_that_of_an_open_engine():
    class NarrowEngine(HashEngine):
        coverage = 0.5

    pairs = [("CCO", "O")]
    for call in (moltc_vllm.predict, moltc_vllm.screen):
        with pytest.raises(
            ValueError, match=r"coverage is 0\.8, but the engine was opened with 0\.5"
        ):
            call("solvation", pairs, engine=NarrowEngine())
        with pytest.raises(ValueError, match="between 0 and 1"):
            call("solvation", pairs, engine=HashEngine(), coverage=80)
    (answer,) = moltc_vllm.predict("solvation", pairs, engine=NarrowEngine(), coverage=0.5)
    assert answer.low < answer.high
