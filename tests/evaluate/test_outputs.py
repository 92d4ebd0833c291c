"""What is written: every row beside its answer, and a plot."""

import csv
import sys

import pytest

from moltc_vllm.evaluate.plots import PlotError, write_plot
from moltc_vllm.evaluate.predictions import write_predictions
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.tasks import get_task
from tests.evaluate.fakes import dataset, said


def written(folder, name, targets, answers):
    path = folder / "predictions.csv"
    write_predictions(path, dataset(name, targets), answers)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_row_has_one_line(tmp_path):
    task = get_task("solvation")
    answers = {
        1: said("solvation", -4.2, 0.25),
        3: task.failed("unparsed", "not of the form", text='so "many,\nlines'),
        4: task.failed("bad_molecule", "molecule 'C4': because"),
    }
    rows = written(tmp_path, "solvation", [-4.0, None, 1.0, 2.0, 3.5], answers)
    assert [row["row"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0] == {
        "row": "1",
        "solute_smiles": "C1",
        "solvent_smiles": "C1",
        "target": "-4.0",
        "status": "ok",
        "answer": "-4.2",
        "interval_low": "-4.5",
        "interval_high": "-4.0",
        "confidence": "0.25",
        "text": task.write(-4.2),
        "error": "",
    }
    assert [row["status"] for row in rows[1:]] == [
        "not_measured",
        "unparsed",
        "bad_molecule",
        "not_reached",
    ]
    assert rows[2]["text"] == 'so "many,\nlines'
    assert rows[3]["error"] == "molecule 'C4': because"
    for row in rows[1:]:
        assert row["answer"] == row["confidence"] == row["interval_low"] == ""
    assert rows[1]["target"] == ""
    assert rows[4]["target"] == "3.5"


@pytest.mark.parametrize(
    ("name", "target", "answer", "cells"),
    [
        ("ddi_type", 49, 47, ("49", "47")),
        ("ddi", 1, 0, ("1", "0")),
        ("quantum_yield", 0.25, 0.0, ("0.25", "0.0")),
        ("ddi_side_effects", ("a b", "c"), ("c", "d"), ("a b; c", "c; d")),
        ("caption", "An acid.", "A base.", ("An acid.", "A base.")),
    ],
)
def test_target_and_answer_can_be_compared(tmp_path, name, target, answer, cells):
    (row,) = written(tmp_path, name, [target], {1: said(name, answer)})
    assert (row["target"], row["answer"]) == cells


def test_the_text_of_a_failure_is_not_its_answer(tmp_path):
    failed = get_task("caption").failed("error", "cut off", text="An ac")
    (row,) = written(tmp_path, "caption", ["An acid."], {1: failed})
    assert (row["status"], row["answer"], row["text"]) == ("error", "", "An ac")


def plot(path, name, rows):
    task = get_task(name)
    data = dataset(name, [target for target, *_ in rows])
    answers = {
        number: said(name, answer, confidence) if answer is not None else task.failed("error", "x")
        for number, (_, answer, confidence) in enumerate(rows, 1)
    }
    write_plot(path, "Title", task, data, answers, evaluate(task, data, answers, resamples=20))


@pytest.mark.parametrize(
    ("name", "rows", "panels"),
    [
        ("solvation", [(-3.0, -3.5, 0.5), (2.0, 2.5, 0.2), (1.0, None, None)], 3),
        ("solvation", [(1.0, 1.0, None)], 3),
        ("solvation", [(n / 1000, n / 990, 0.5) for n in range(4000)], 3),
        ("ddi", [(1, 1, 0.9), (0, 1, 0.6), (0, None, None)], 2),
        ("ddi", [(1, 1, None)], 2),
        ("ddi_type", [(1, 1, 0.9), (2, 1, 0.6), (2, 2, 0.3)], 2),
    ],
)
def test_plots(tmp_path, monkeypatch, name, rows, panels):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1]
    )
    plot(tmp_path / "a.png", name, rows)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    assert len(figure.axes) == panels
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    assert all(axes.has_data() for axes in figure.axes)


def test_the_points_of_the_parity_plot_are_the_answers(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: found.append(self))
    found = []
    plot(tmp_path / "a.png", "solvation", [(-3.0, -3.5, 0.5), (2.0, 2.5, 0.2), (1.0, None, None)])
    parity, residuals, _ = found[0].axes
    assert parity.collections[0].get_offsets().tolist() == [[-3.0, -3.5], [2.0, 2.5]]
    assert residuals.collections[0].get_offsets().tolist() == [[-3.0, -0.5], [2.0, 0.5]]
    assert parity.get_xlabel() == "measured, kcal/mol"


def test_no_plot_says_why(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    with pytest.raises(PlotError, match="none of lists and texts"):
        plot(path, "caption", [("a", "b", None)])
    with pytest.raises(PlotError, match="no row was answered"):
        plot(path, "ddi", [(1, None, None)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotError, match=r"no plot: .*matplotlib"):
        plot(path, "ddi", [(1, 1, 0.5)])
    assert not path.exists()
