"""What a screen came to, from its parts alone."""

import csv
import json

import pytest

from moltc_vllm.screening.prepare import ScreenConfig, prepare
from moltc_vllm.screening.run import run
from moltc_vllm.screening.summary import Ranking, summarize, write_summary
from moltc_vllm.tasks import get_task
from tests.screening.engines import HashEngine, answer_of


class Quiet:
    def at(self, progress):
        pass


PAIRS = [*(("C" * n, "O") for n in range(1, 31)), ("C1CC", "O"), ("", "O"), ("CO1C", "O")]


@pytest.fixture
def screened(tmp_path):
    def do(task):
        path = tmp_path / "pairs.csv"
        lines = ["a_smiles,b_smiles", *(f"{a},{b}" for a, b in PAIRS), "C"]
        path.write_text("\n".join(lines))
        prepared = prepare(ScreenConfig(task, tmp_path / task, pairs=path, part_rows=8), {})
        run(prepared.screen, HashEngine(), Quiet())
        return prepared.screen

    return do


def test_counts_and_reasons(screened):
    screen = screened("solvation")
    found = summarize(screen.folder, screen.parts, screen.task, Ranking())
    assert found.rows == 34
    assert found.statuses == {"ok": 30, "bad_molecule": 3, "error": 1}
    assert found.failed == 4
    # Without the molecule, so that equal reasons are counted together.
    assert set(found.reasons) >= {"error: the row has 1 columns, the header 2"}
    assert sum(count for reason, count in found.reasons.items() if "syntax" in reason) == 2
    assert not any("C1CC'" in reason for reason in found.reasons)
    values = [answer_of(screen.task, pair).value for pair in PAIRS[:30]]
    assert (found.low, found.high) == (min(values), max(values))
    assert found.mean == pytest.approx(sum(values) / 30)


@pytest.mark.parametrize("smallest", [False, True])
def test_numbers_at_the_top(screened, smallest):
    screen = screened("solvation")
    values = {n: answer_of(screen.task, pair).value for n, pair in enumerate(PAIRS[:30], 1)}
    sign = 1 if smallest else -1
    order = sorted(values, key=lambda row: (sign * values[row], row))
    found = summarize(screen.folder, screen.parts, screen.task, Ranking(7, smallest))
    assert [row["row"] for row in found.top] == order[:7]
    some = Ranking(100, smallest, threshold=-8.0)
    found = summarize(screen.folder, screen.parts, screen.task, some)
    good = [row for row in order if (values[row] <= -8 if smallest else values[row] >= -8)]
    assert 0 < len(good) < 30
    assert [row["row"] for row in found.top] == good


def test_labels_at_the_top(screened):
    screen = screened("ddi")
    answers = {n: answer_of(screen.task, pair) for n, pair in enumerate(PAIRS[:30], 1)}
    found = summarize(screen.folder, screen.parts, screen.task, Ranking(100))
    assert found.labels["interaction"] == sum(a.label_id for a in answers.values())
    yes = [row for row in answers if answers[row].label_id == 1]
    assert [row["row"] for row in found.top] == sorted(
        yes, key=lambda row: (-round(answers[row].confidence, 6), row)
    )
    no = screen.task.kind.labels[0].name
    other = Ranking(2, label=no, threshold=0.2)
    top = summarize(screen.folder, screen.parts, screen.task, other).top
    assert {row["label"] for row in top} == {no}
    assert top[0]["confidence"] >= top[1]["confidence"] >= 0.2


def test_files(screened, tmp_path):
    screen = screened("solvation")
    found = summarize(screen.folder, screen.parts, screen.task, Ranking(3))
    write_summary(screen.folder, found, screen.layout.schema.names, {"task": "solvation"})
    written = json.loads((screen.folder / "summary.json").read_text())
    assert written["rows"] == 34
    assert written["task"] == "solvation"
    assert written["statuses"]["ok"] == 30
    with (screen.folder / "top.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == [row["row"] for row in found.top]
    assert [float(line["value"]) for line in lines] == [row["value"] for row in found.top]
    none = summarize(screen.folder, screen.parts, screen.task, Ranking(0))
    write_summary(screen.folder, none, screen.layout.schema.names, {})
    (header,) = (screen.folder / "top.csv").read_text().splitlines()
    assert header.split(",") == screen.layout.schema.names


@pytest.mark.parametrize(
    ("task", "ranking", "said"),
    [
        ("ddi", Ranking(smallest=True), "'ddi' is not about numbers"),
        ("ddi", Ranking(label="maybe"), "no label 'maybe'; there are no_interaction, interaction"),
        ("solvation", Ranking(label="interaction"), "'solvation' has no labels"),
    ],
)
def test_a_ranking_that_means_nothing(task, ranking, said):
    with pytest.raises(ValueError, match=said):
        ranking.check(get_task(task))
    Ranking(label="interaction").check(get_task("ddi"))
    Ranking(smallest=True).check(get_task("solvation"))
