"""Every input row becomes one output row, whatever the engine does."""

import json
import tracemalloc

import pytest

from moltc_vllm.screening.config import Ranking, ScreenConfig
from moltc_vllm.screening.finalize import finalize
from moltc_vllm.screening.manifest import ManifestError, lock_folder
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.screening.run import LocalExecutor, run_screen
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import EngineError
from tests.screening.fake_engines import HashEngine, answer_of
from tests.screening.screens import LEFT, MODEL, RIGHT, read_rows, run_config


def test_product_has_one_row_per_pair(tmp_path, left, right):
    config = ScreenConfig(
        "solvation", tmp_path / "out", left=left, right=right, part_rows=10, block=4
    )
    engine = HashEngine()
    prepared, is_complete, progress = run_config(config, engine)
    rows = read_rows(prepared)
    total = (len(LEFT) + 1) * len(RIGHT)
    assert is_complete
    assert progress.updates[-1][:2] == (total, total)
    assert sorted(row["row"] for row in rows) == list(range(1, total + 1))
    task = get_task("solvation")
    for row in rows:
        assert row["row"] == (row["left_row"] - 1) * len(RIGHT) + row["right_row"]
        if row["left_row"] == 4:  # the row with too many columns
            assert row["status"] == "error"
            assert row["error"] == "left row 4: the row has 3 columns, the header 2"
            assert row["left_smiles"] is None
            continue
        smiles = row["left_smiles"], row["right_solvent_smiles"]
        assert smiles[1] == RIGHT[row["right_row"] - 1]
        assert row["right_status"] == "x"
        expected = answer_of(task, smiles)
        assert row["status"] == expected.status
        assert row["error"] == expected.error
        assert row["value"] == expected.value
        if expected.status == "ok":
            assert (row["low"], row["high"], row["std"]) == (expected.low, expected.high, 0.5)
            assert (row["likeliest_low"], row["likeliest_high"]) == expected.likeliest_interval
            assert row["familiarity"] == expected.familiarity
            assert row["unit"] == "kcal/mol"
            assert row["confidence"] == round(expected.confidence, 6)
    assert {row["status"] for row in rows} == {"ok", "bad_molecule", "error"}
    assert len(engine.submitted) == len(set(engine.submitted)) == total - len(RIGHT)
    assert "text" not in rows[0]


def test_pair_table_has_one_row_per_input_row(tmp_path):
    lines = ["a_smiles,b_smiles,row,note", "CCO,O,7,first", "C1CC,O,8,bad", "CO,C", 'C,O,9,"last"']
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    config = ScreenConfig("ddi", tmp_path / "out", pairs=tmp_path / "pairs.csv", text=True)
    prepared, *_ = run_config(config)
    rows = read_rows(prepared)
    assert [row["row"] for row in rows] == [1, 2, 3, 4]
    assert [row["input_row"] for row in rows] == ["7", "8", None, "9"]
    assert [row["status"] for row in rows] == ["ok", "bad_molecule", "error", "ok"]
    assert rows[2]["error"] == "row 3: the row has 2 columns, the header 4"
    assert rows[3]["note"] == "last"
    assert rows[0]["label"] in {label.name for label in prepared.screen.task.kind.labels}
    assert rows[0]["text"]


def test_triangle_has_every_two_molecules_once(tmp_path, left):
    config = ScreenConfig("ddi", tmp_path / "out", left=left, how="triangle", block=5)
    prepared, *_ = run_config(config)
    pairs = [(row["left_row"], row["right_row"]) for row in read_rows(prepared)]
    size = len(LEFT) + 1
    assert sorted(pairs) == [(a, b) for a in range(1, size + 1) for b in range(a + 1, size + 1)]


def test_triangle_of_directed_task_has_both_directions(tmp_path, left):
    config = ScreenConfig(
        "ddi_type", tmp_path / "out", left=left, how="triangle", block=5, part_rows=11
    )
    prepared, *_ = run_config(config)
    rows = read_rows(prepared)
    size = len(LEFT) + 1
    assert sorted((row["left_row"], row["right_row"]) for row in rows) == [
        (a, b) for a in range(1, size + 1) for b in range(1, size + 1) if a != b
    ]
    for row in rows:
        directed = row["label"] is not None and not row["label"].startswith("increase risk of ")
        directed |= row["label"] == "increase risk of hypersensitivity"
        expected = (row["left_smiles"], row["right_smiles"]) if directed else (None, None)
        assert (row["subject"], row["object"]) == expected
    answers = [prepared.screen.layout.answer(row) for row in rows]
    assert {answer.subject for answer in answers} == {row["subject"] for row in rows}
    assert len({answer.subject for answer in answers}) > 5


def test_half_triangle_of_earlier_version_is_resumed(tmp_path, left):
    """Earlier versions asked every two molecules in one direction, in any task."""
    config = ScreenConfig("ddi_type", tmp_path / "out", left=left, how="triangle", part_rows=10)
    prepare(config, MODEL)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["screen"].pop("directions") == 2
    for name in ("answer_columns", "coverage"):
        del manifest["screen"][name]
    path.write_text(json.dumps(manifest))
    engine = HashEngine()
    _, is_complete, _ = run_config(config, engine, should_stop=lambda: len(engine.submitted) >= 25)
    assert not is_complete
    prepared, is_complete, _ = run_config(config)
    assert is_complete
    assert prepared.resumed
    rows = read_rows(prepared)
    size = len(LEFT) + 1
    assert len(rows) == size * (size - 1) // 2
    assert all(row["left_row"] < row["right_row"] for row in rows)
    assert "subject" not in rows[0]


def test_zip_pairs_row_by_row(tmp_path, left):
    config = ScreenConfig("ddi", tmp_path / "out", left=left, right=left, how="zip")
    prepared, *_ = run_config(config)
    assert [(row["left_row"], row["right_row"]) for row in read_rows(prepared)] == [
        (number, number) for number in range(1, len(LEFT) + 2)
    ]


def test_run_screen_finishes_started_parts_on_stop(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right, part_rows=10)
    engine = HashEngine()
    _, is_complete, _ = run_config(config, engine, should_stop=lambda: len(engine.submitted) >= 25)
    assert not is_complete
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 4
    _, is_complete, _ = run_config(config)
    assert is_complete


def test_run_screen_writes_parts_that_need_no_engine(tmp_path):
    (tmp_path / "pairs.csv").write_text("a_smiles,b_smiles\nC\nC\nC\n")
    config = ScreenConfig("ddi", tmp_path / "out", pairs=tmp_path / "pairs.csv", part_rows=2)
    prepared, is_complete, _ = run_config(config)
    assert is_complete
    assert [row["status"] for row in read_rows(prepared)] == ["error"] * 3


@pytest.mark.parametrize("fault", ["twice", "never submitted"])
def test_run_screen_refuses_unexpected_answers(tmp_path, left, right, fault):
    class WrongEngine(HashEngine):
        def submit(self, task, pairs, question=None):
            for pair, answer in super().submit(task, pairs):
                yield pair, answer
                yield (pair if fault == "twice" else pair._replace(row=9999)), answer

    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    with pytest.raises(EngineError, match="twice, or the pair was never submitted"):
        run_config(config, WrongEngine())


def test_run_screen_records_error_for_forgotten_pairs(tmp_path, left, right):
    class ForgetfulEngine(HashEngine):
        def submit(self, task, pairs, question=None):
            for index, result in enumerate(super().submit(task, pairs)):
                if index % 5:
                    yield result

    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right, part_rows=10)
    prepared, is_complete, _ = run_config(config, ForgetfulEngine())
    assert is_complete
    rows = read_rows(prepared)
    assert len(rows) == 91
    assert sum(row["error"] == "the engine returned no answer" for row in rows) == 17


def test_run_screen_memory_does_not_grow_with_pairs(tmp_path):
    class ConstantEngine:
        def submit(self, task, pairs, question=None):
            answer = answer_of(get_task(task), ("C", "O"))
            for pair in pairs:
                yield pair, answer

    library = tmp_path / "library.smi"
    library.write_text("\n".join("C" * (1 + n % 40) + f" m{n}" for n in range(3000)))
    peaks = []
    for limit in (4_000, 20_000):
        config = ScreenConfig(
            "ddi", tmp_path / f"{limit}", left=library, right=library, limit=limit, part_rows=500
        )
        screen = prepare(config, MODEL).screen
        tracemalloc.start()
        run_screen(screen, LocalExecutor(ConstantEngine()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_folder_is_written_by_one_process(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    screen = prepare(config, MODEL).screen
    executor = LocalExecutor(HashEngine())
    with lock_folder(tmp_path / "out"):
        with pytest.raises(ManifestError, match="written by another process"):
            run_screen(screen, executor)
        with pytest.raises(ManifestError, match="written by another process"):
            prepare(config, MODEL)
    assert run_screen(screen, executor)


def test_local_executor_leaves_lock_to_driver(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    screen = prepare(config, MODEL).screen
    with lock_folder(tmp_path / "out"):
        assert run_screen(screen, LocalExecutor(HashEngine(), lock=False))


@pytest.mark.parametrize("task", ["solvation", "ddi"])
def test_input_columns_called_like_answer_columns_are_renamed(tmp_path, task):
    names = ["row", "input_row", "label", "low", "items", "value"]
    header = ",".join(["a_smiles", "b_smiles", *names])
    (tmp_path / "pairs.csv").write_text(f"{header}\nC,O,1,2,3,4,5,6\nCC,O,1,2,3,4,5,6\n")
    config = ScreenConfig(task, tmp_path / "out", pairs=tmp_path / "pairs.csv")
    prepared, *_ = run_config(config)
    rows = read_rows(prepared)
    assert [row["row"] for row in rows] == [1, 2]
    for row in rows:
        renamed = ("input_row", "input_input_row", "input_label", "input_low", "input_items")
        assert [row[name] for name in (*renamed, "input_value")] == list("123456")
    assert len(set(prepared.screen.layout.schema.names)) == len(rows[0])
    assert finalize(prepared.screen, Ranking()).rows == 2
