"""A summary is computed from the parts of a screen alone."""

import csv
import json

import pytest

from moltc_vllm.screening.config import Ranking, ScreenConfig
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.screening.run import LocalExecutor, run_screen
from moltc_vllm.screening.summary import summarize, write_summary
from moltc_vllm.tasks import get_task
from tests.screening.fake_engines import HashEngine, answer_of

PAIRS = [*(("C" * n, "O") for n in range(1, 31)), ("C1CC", "O"), ("", "O"), ("CO1C", "O")]


@pytest.fixture
def complete_screen(tmp_path):
    def run(task):
        path = tmp_path / "pairs.csv"
        lines = ["a_smiles,b_smiles", *(f"{a},{b}" for a, b in PAIRS), "C"]
        path.write_text("\n".join(lines))
        screen = prepare(ScreenConfig(task, tmp_path / task, pairs=path, part_rows=8), {}).screen
        run_screen(screen, LocalExecutor(HashEngine()))
        return screen

    return run


def test_summarize_counts_statuses_and_reasons(complete_screen):
    screen = complete_screen("solvation")
    summary = summarize(screen.folder, screen.part_count, screen.task, Ranking())
    assert summary.rows == 34
    assert summary.statuses == {"ok": 30, "bad_molecule": 3, "error": 1}
    assert summary.failed == 4
    # Reasons leave out the molecule, so that equal ones are counted together.
    assert set(summary.reasons) >= {"error: the row has 1 columns, the header 2"}
    assert sum(count for reason, count in summary.reasons.items() if "syntax" in reason) == 2
    assert not any("C1CC'" in reason for reason in summary.reasons)
    values = [answer_of(screen.task, pair).value for pair in PAIRS[:30]]
    assert (summary.low, summary.high) == (min(values), max(values))
    assert summary.mean == pytest.approx(sum(values) / 30)


@pytest.mark.parametrize("smallest", [False, True])
def test_summarize_ranks_numbers(complete_screen, smallest):
    screen = complete_screen("solvation")
    values = {n: answer_of(screen.task, pair).value for n, pair in enumerate(PAIRS[:30], 1)}
    sign = 1 if smallest else -1
    order = sorted(values, key=lambda row: (sign * values[row], row))
    summary = summarize(screen.folder, screen.part_count, screen.task, Ranking(7, smallest))
    assert [row["row"] for row in summary.top] == order[:7]
    ranking = Ranking(100, smallest, threshold=-8.0)
    summary = summarize(screen.folder, screen.part_count, screen.task, ranking)
    good = [row for row in order if (values[row] <= -8 if smallest else values[row] >= -8)]
    assert 0 < len(good) < 30
    assert [row["row"] for row in summary.top] == good


def test_summarize_ranks_labels(complete_screen):
    screen = complete_screen("ddi")
    answers = {n: answer_of(screen.task, pair) for n, pair in enumerate(PAIRS[:30], 1)}
    summary = summarize(screen.folder, screen.part_count, screen.task, Ranking(100))
    assert summary.labels["interaction"] == sum(a.label_id for a in answers.values())
    positive = [row for row in answers if answers[row].label_id == 1]
    assert [row["row"] for row in summary.top] == sorted(
        positive, key=lambda row: (-round(answers[row].confidence, 6), row)
    )
    negative = screen.task.kind.labels[0].name
    other = Ranking(2, label=negative, threshold=0.2)
    top = summarize(screen.folder, screen.part_count, screen.task, other).top
    assert {row["label"] for row in top} == {negative}
    assert top[0]["confidence"] >= top[1]["confidence"] >= 0.2


def test_write_summary_writes_json_and_csv(complete_screen, tmp_path):
    screen = complete_screen("solvation")
    summary = summarize(screen.folder, screen.part_count, screen.task, Ranking(3))
    write_summary(screen.folder, summary, screen.layout.schema.names, {"task": "solvation"})
    written = json.loads((screen.folder / "summary.json").read_text())
    assert written["rows"] == 34
    assert written["task"] == "solvation"
    assert written["statuses"]["ok"] == 30
    with (screen.folder / "top.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == [row["row"] for row in summary.top]
    assert [float(line["value"]) for line in lines] == [row["value"] for row in summary.top]
    empty = summarize(screen.folder, screen.part_count, screen.task, Ranking(0))
    write_summary(screen.folder, empty, screen.layout.schema.names, {})
    (header,) = (screen.folder / "top.csv").read_text().splitlines()
    assert header.split(",") == screen.layout.schema.names


@pytest.mark.parametrize(
    ("task", "ranking", "message"),
    [
        ("ddi", Ranking(smallest=True), "'ddi' does not answer with numbers"),
        (
            "ddi",
            Ranking(label="maybe"),
            "no label 'maybe'; its labels are no_interaction, interaction",
        ),
        ("solvation", Ranking(label="interaction"), "'solvation' has no labels"),
    ],
)
def test_ranking_check_refuses_other_tasks(task, ranking, message):
    with pytest.raises(ValueError, match=message):
        ranking.check(get_task(task))
    Ranking(label="interaction").check(get_task("ddi"))
    Ranking(smallest=True).check(get_task("solvation"))
