"""Every input row is one output row, whatever happens on the way."""

import json
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from moltc_vllm.screening.finalize import finalize
from moltc_vllm.screening.inputs import find_column
from moltc_vllm.screening.manifest import ManifestError, locked
from moltc_vllm.screening.parts import mark_for_retry, part_path
from moltc_vllm.screening.prepare import ScreenConfig, prepare
from moltc_vllm.screening.run import run
from moltc_vllm.screening.summary import Ranking
from moltc_vllm.tables.table_readers import TableError
from moltc_vllm.tasks import PromptError, UnknownTaskError, get_task
from moltc_vllm.tasks.engine import EngineError
from tests.screening.engines import FailingEngine, HashEngine, answer_of

MODEL = {"name": "hash"}
LEFT = ["C" * n for n in range(1, 12)] + ["C1CC"]
RIGHT = ["O", "CO", "CCO", "", "c1ccccc1", "CC#N", "CS(C)=O"]


class Quiet:
    def __init__(self):
        self.seen = []

    def at(self, progress):
        self.seen.append((progress.done, progress.total, progress.failed))


@pytest.fixture
def left(tmp_path):
    path = tmp_path / "left.csv"
    rows = [f"{smiles},molecule {place}" for place, smiles in enumerate(LEFT, 1)]
    rows.insert(3, "broken,row,here")
    path.write_text("\n".join(["smiles,name", *rows]))
    return path


@pytest.fixture
def right(tmp_path):
    path = tmp_path / "right.csv"
    path.write_text(
        "\n".join(["id,solvent_smiles,status", *(f"{n},{s},x" for n, s in enumerate(RIGHT))])
    )
    return path


def screened(config, engine=None, model=MODEL, stop=lambda: False):
    prepared = prepare(config, model)
    watcher = Quiet()
    whole = run(prepared.screen, engine or HashEngine(), watcher, stop)
    return prepared, whole, watcher


def rows(prepared):
    screen = prepared.screen
    tables = [pa_parquet.read_table(part_path(screen.folder, n)) for n in range(screen.parts)]
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("task", ["solvation", "ddi"])
def test_errors_are_asked_again_and_nothing_else(tmp_path, left, right, task, interrupted):
    config = ScreenConfig(
        task, tmp_path / "straight", left=left, right=right, part_rows=10, block=4
    )
    expected = rows(screened(config)[0])
    config = replace(config, out=tmp_path / "failing")
    prepared, whole, _ = screened(config, FailingEngine())
    before = rows(prepared)
    failed = {row["row"] for row in before if row["error"] == "too busy"}
    assert whole
    assert failed
    again = FailingEngine(failing=False)
    if interrupted:  # nothing was made; plainly gone on with
        prepare(replace(config, retry_errors=True), MODEL)
        prepared, whole, watcher = screened(config, again)
    else:
        prepared, whole, watcher = screened(replace(config, retry_errors=True), again)
    found = rows(prepared)
    assert whole
    assert found == expected
    # Molecules that cannot be read are not asked about again, nor what was answered.
    assert {found[place]["row"] for place in again.places} == failed
    assert watcher.seen[-1][:2] == (len(expected), len(expected))
    last = FailingEngine()
    screened(replace(config, retry_errors=True), last)
    assert last.places == []
    mark_for_retry(prepared.screen.folder, 0)  # as if it was killed before it took the mark away
    prepared, whole, _ = screened(config, last)
    assert whole
    assert last.places == []
    assert rows(prepared) == expected


def test_until_errors_are_asked_again_all_rows_are_there(tmp_path, left, right):
    config = ScreenConfig(
        "solvation", tmp_path / "out", left=left, right=right, part_rows=10, block=4
    )
    before = rows(screened(config, FailingEngine())[0])
    with pytest.raises(ConnectionError):
        screened(replace(config, retry_errors=True), HashEngine(fails_after=0))
    assert rows(prepare(config, MODEL)) == before


def test_a_product(tmp_path, left, right):
    config = ScreenConfig(
        "solvation", tmp_path / "out", left=left, right=right, part_rows=10, block=4
    )
    engine = HashEngine()
    prepared, whole, watcher = screened(config, engine)
    found = rows(prepared)
    total = (len(LEFT) + 1) * len(RIGHT)
    assert whole
    assert watcher.seen[-1][:2] == (total, total)
    assert sorted(row["row"] for row in found) == list(range(1, total + 1))
    task = get_task("solvation")
    for row in found:
        assert row["row"] == (row["left_row"] - 1) * len(RIGHT) + row["right_row"]
        if row["left_row"] == 4:  # it could not be read
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
            assert (row["low"], row["high"]) == expected.interval
            assert row["unit"] == "kcal/mol"
            assert row["confidence"] == round(expected.confidence, 6)
    assert {row["status"] for row in found} == {"ok", "bad_molecule", "error"}
    assert len(engine.asked) == len(set(engine.asked)) == total - len(RIGHT)
    assert "text" not in found[0]


def test_rows_of_pairs(tmp_path):
    lines = ["a_smiles,b_smiles,row,note", "CCO,O,7,first", "C1CC,O,8,bad", "CO,C", 'C,O,9,"last"']
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    config = ScreenConfig("ddi", tmp_path / "out", pairs=tmp_path / "pairs.csv", text=True)
    prepared, *_ = screened(config)
    found = rows(prepared)
    assert [row["row"] for row in found] == [1, 2, 3, 4]
    assert [row["input_row"] for row in found] == ["7", "8", None, "9"]
    assert [row["status"] for row in found] == ["ok", "bad_molecule", "error", "ok"]
    assert found[2]["error"] == "row 3: the row has 2 columns, the header 4"
    assert found[3]["note"] == "last"
    assert found[0]["label"] in {one.name for one in prepared.screen.task.kind.labels}
    assert found[0]["text"]


def test_every_two_and_row_by_row(tmp_path, left):
    triangle = ScreenConfig("ddi", tmp_path / "out", left=left, how="triangle", block=5)
    prepared, *_ = screened(triangle)
    pairs = [(row["left_row"], row["right_row"]) for row in rows(prepared)]
    size = len(LEFT) + 1
    assert sorted(pairs) == [(a, b) for a in range(1, size + 1) for b in range(a + 1, size + 1)]
    zipped = ScreenConfig("ddi", tmp_path / "zip", left=left, right=left, how="zip")
    prepared, *_ = screened(zipped)
    assert [(row["left_row"], row["right_row"]) for row in rows(prepared)] == [
        (n, n) for n in range(1, size + 1)
    ]


def test_a_screen_goes_on_where_it_was_ended(tmp_path, left, right):
    config = ScreenConfig(
        "solvation", tmp_path / "out", left=left, right=right, part_rows=10, block=4
    )
    with pytest.raises(ConnectionError):
        screened(config, HashEngine(fails_after=45))
    done = len(list((tmp_path / "out").glob("part-*.parquet")))
    assert 2 < done < 9
    # One part was cut short on its way to the disk.
    broken = part_path(tmp_path / "out", 1)
    broken.write_bytes(broken.read_bytes()[:-20])
    engine = HashEngine()
    prepared, whole, watcher = screened(config, engine)
    assert prepared.resumed
    assert whole
    assert len(engine.asked) < 91 - 10 * (done - 1)
    assert watcher.seen[0][0] == 10 * (done - 1) + 1
    other = ScreenConfig(
        "solvation", tmp_path / "other", left=left, right=right, part_rows=10, block=4
    )
    assert rows(prepared) == rows(screened(other)[0])


def test_when_asked_to_stop_parts_in_flight_are_finished(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right, part_rows=10)
    engine = HashEngine()
    _, whole, _ = screened(config, engine, stop=lambda: len(engine.asked) >= 25)
    assert not whole
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(parts) == 4
    _, whole, _ = screened(config)
    assert whole


def test_the_last_part_may_be_whole_before_anything_is_answered(tmp_path):
    (tmp_path / "pairs.csv").write_text("a_smiles,b_smiles\nC\nC\nC\n")
    config = ScreenConfig("ddi", tmp_path / "out", pairs=tmp_path / "pairs.csv", part_rows=2)
    prepared, whole, _ = screened(config)
    assert whole
    assert [row["status"] for row in rows(prepared)] == ["error"] * 3


@pytest.mark.parametrize("wrong", ["twice", "never"])
def test_an_engine_that_answers_what_it_was_not_asked(tmp_path, left, right, wrong):
    class Wrong(HashEngine):
        def submit(self, task, pairs, question=None):
            for pair, answer in super().submit(task, pairs):
                yield pair, answer
                yield (pair if wrong == "twice" else pair._replace(row=9999)), answer

    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    with pytest.raises(EngineError, match="twice, or was never asked"):
        screened(config, Wrong())


def test_what_an_engine_forgets_is_said(tmp_path, left, right):
    class Forgetful(HashEngine):
        def submit(self, task, pairs, question=None):
            for number, found in enumerate(super().submit(task, pairs)):
                if number % 5:
                    yield found

    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right, part_rows=10)
    prepared, whole, _ = screened(config, Forgetful())
    assert whole
    found = rows(prepared)
    assert len(found) == 91
    assert sum(row["error"] == "the engine gave no answer" for row in found) == 17


@pytest.mark.parametrize(
    ("change", "model", "said"),
    [
        ({"task": "ddi"}, MODEL, 'task was "solvation", is "ddi"; prompt was '),
        ({"part_rows": 11}, MODEL, "part_rows was 10, is 11"),
        ({}, {"name": "other"}, 'model.name was "hash", is "other"'),
        ({"limit": 3}, MODEL, "limit was null, is 3"),
    ],
)
def test_another_screen_is_refused(tmp_path, left, right, change, model, said):
    settings = {"task": "solvation", "left": left, "right": right, "part_rows": 10}
    screened(ScreenConfig(out=tmp_path / "out", **settings))
    with pytest.raises(ManifestError) as error:
        prepare(ScreenConfig(out=tmp_path / "out", **{**settings, **change}), model)
    assert str(error.value).startswith(f"{tmp_path / 'out'} holds another screen: ")
    assert said in str(error.value)


def test_a_changed_file_is_refused(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    screened(config)
    right.write_text(right.read_text() + "\n9,N,y")
    with pytest.raises(ManifestError, match=r"files\.right\.sha256 was "):
        prepare(config, MODEL)


def test_a_folder_of_something_else_is_refused(tmp_path, left, right):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ManifestError, match=r"is not empty and has no manifest\.json"):
        prepare(ScreenConfig("solvation", tmp_path, left=left, right=right), MODEL)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"task": "solvatoin"}, UnknownTaskError, "solvatoin"),
        ({"task": "caption"}, PromptError, "1 molecule"),
        ({"right": None}, ValueError, "needs a file of pairs, or a left and a right one"),
        ({"how": "triangle"}, ValueError, "needs a file of pairs"),
        ({"how": "zip"}, ValueError, "row by row, but the files have 13 and 7 rows"),
        ({"columns": ("smile", None)}, TableError, "left.csv has no column 'smile'; there are "),
        ({"part_rows": 0}, ValueError, "are 1 or more"),
    ],
)
def test_wishes_that_cannot_be(tmp_path, left, right, change, error, said):
    settings = {"task": "solvation", "left": left, "right": right}
    with pytest.raises(error) as caught:
        prepare(ScreenConfig(out=tmp_path / "out", **{**settings, **change}), MODEL)
    assert said in str(caught.value)


def test_which_columns_is_asked(tmp_path):
    (tmp_path / "pairs.csv").write_text("a,b,c\nC,O,x\n")
    config = ScreenConfig("ddi", tmp_path / "out", pairs=tmp_path / "pairs.csv")
    with pytest.raises(TableError, match="which two columns have the molecules is not clear"):
        prepare(config, MODEL)


def test_an_sdfs_own_structures_are_meant_beside_a_field_of_that_name():
    assert find_column("a.sdf", ("smiles", "name", "SMILES"), None) == 0
    assert find_column("a.csv", ("id", "SMILES"), None) == 1
    with pytest.raises(TableError, match="name it with --columns; there are SMILES, Smiles"):
        find_column("a.csv", ("SMILES", "Smiles"), None)


def test_killed_at_any_moment(tmp_path, left, right):
    command = [sys.executable, "-m", "tests.screening.engines"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    inputs = [str(left), str(right)]
    subprocess.run([*command, str(straight), *inputs], check=True, capture_output=True, timeout=120)
    rng, kills = random.Random(1), 0
    while kills < 4:
        with subprocess.Popen(
            [*command, str(killed), *inputs],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline()  # it is at work
            time.sleep(rng.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        kills += process.returncode == -signal.SIGKILL
    subprocess.run([*command, str(killed), *inputs], check=True, capture_output=True, timeout=120)
    names = sorted(path.name for path in straight.glob("part-*.parquet"))
    assert names == sorted(path.name for path in killed.glob("part-*.parquet"))
    for name in names:
        assert pa_parquet.read_table(straight / name) == pa_parquet.read_table(killed / name)
    manifests = [
        json.loads((folder / "manifest.json").read_text()) for folder in (straight, killed)
    ]
    assert manifests[0] == manifests[1]


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path):
    library = tmp_path / "library.smi"
    library.write_text("\n".join("C" * (1 + n % 40) + f" m{n}" for n in range(3000)))
    peaks = []
    for limit in (4_000, 20_000):
        config = ScreenConfig(
            "ddi", tmp_path / f"{limit}", left=library, right=library, limit=limit, part_rows=500
        )
        prepared = prepare(config, MODEL)
        tracemalloc.start()
        run(prepared.screen, Cheap(), Quiet0())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


class Cheap(HashEngine):
    """One answer for all, and nothing remembered."""

    def submit(self, task, pairs, question=None):
        answer = answer_of(get_task(task), ("C", "O"))
        for pair in pairs:
            yield pair, answer


class Quiet0:
    def at(self, progress):
        pass


def test_a_folder_that_was_emptied_is_a_new_one(tmp_path, left, right):
    """What starts with a dot stays after ``rm OUT/*``: the copies of the old files."""
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    screened(config)
    for path in (tmp_path / "out").iterdir():
        if path.name[0] != ".":
            path.unlink()
    left.write_text("smiles,name\nN,ammonia\n")
    prepared, whole, _ = screened(config)
    assert whole
    assert {row["left_name"] for row in rows(prepared)} == {"ammonia"}


def test_what_cannot_be_prepared_is_not_begun(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right, how="zip")
    with pytest.raises(ValueError, match="row by row"):
        prepare(config, MODEL)
    right.write_text(left.read_text())
    assert screened(config)[1]


def test_a_folder_is_written_by_one_process(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    screen = prepare(config, MODEL).screen
    with locked(tmp_path / "out"):
        with pytest.raises(ManifestError, match="written by another process"):
            run(screen, HashEngine(), Quiet())
        with pytest.raises(ManifestError, match="written by another process"):
            prepare(config, MODEL)
    assert run(screen, HashEngine(), Quiet())


def test_columns_called_like_ours_or_another_tasks(tmp_path):
    names = ["row", "input_row", "label", "low", "items", "value"]
    header = ",".join(["a_smiles", "b_smiles", *names])
    (tmp_path / "pairs.csv").write_text(f"{header}\nC,O,1,2,3,4,5,6\nCC,O,1,2,3,4,5,6\n")
    for task in ("solvation", "ddi"):
        config = ScreenConfig(task, tmp_path / task, pairs=tmp_path / "pairs.csv")
        prepared, _, _ = screened(config)
        found = rows(prepared)
        assert [row["row"] for row in found] == [1, 2]
        for row in found:
            own = ("input_row", "input_input_row", "input_label", "input_low", "input_items")
            assert [row[name] for name in (*own, "input_value")] == list("123456")
        assert len(set(prepared.screen.layout.schema.names)) == len(found[0])
        assert finalize(prepared.screen, Ranking()).rows == 2
