"""``predictions.csv``: every row of the data with its answer."""

import csv

import pytest

from moltc_vllm.evaluate.predictions import write_predictions
from moltc_vllm.tasks import get_task
from tests.evaluate.fakes import make_answer, make_dataset


def written_rows(folder, name, targets, answers):
    path = folder / "predictions.csv"
    write_predictions(path, make_dataset(name, targets), answers)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_write_predictions_writes_one_line_per_row(tmp_path):
    task = get_task("solvation")
    answers = {
        1: make_answer("solvation", -4.2, 0.25).model_copy(
            update={
                "std": 0.3,
                "low": -4.8,
                "high": -3.9,
                "familiarity": "known",
                "notes": ("solute: charged", "solvent: isotope"),
            }
        ),
        3: task.failed("unparsed", "not of the form", text='several "quoted,\nlines'),
        4: task.failed("bad_molecule", "molecule 'C4': because"),
    }
    rows = written_rows(tmp_path, "solvation", [-4.0, None, 1.0, 2.0, 3.5], answers)
    assert [row["row"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0] == {
        "row": "1",
        "solute_smiles": "C1",
        "solvent_smiles": "C1",
        "target": "-4.0",
        "status": "ok",
        "answer": "-4.2",
        "std": "0.3",
        "low": "-4.8",
        "high": "-3.9",
        "interval_low": "-4.5",
        "interval_high": "-4.0",
        "confidence": "0.25",
        "familiarity": "known",
        "notes": "solute: charged; solvent: isotope",
        "text": task.write(-4.2),
        "error": "",
    }
    assert [row["status"] for row in rows[1:]] == [
        "not_measured",
        "unparsed",
        "bad_molecule",
        "not_reached",
    ]
    assert rows[2]["text"] == 'several "quoted,\nlines'
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
        ("ddi_side_effects", ("a b", "c"), ("Pain", "edema"), ("a b; c", "Pain; edema")),
        ("caption", "An acid.", "A base.", ("An acid.", "A base.")),
    ],
)
def test_answer_has_the_form_of_the_target(tmp_path, name, target, answer, cells):
    (row,) = written_rows(tmp_path, name, [target], {1: make_answer(name, answer)})
    assert (row["target"], row["answer"]) == cells


def test_text_of_failed_answer_is_not_its_answer(tmp_path):
    failed = get_task("caption").failed("error", "cut off", text="An ac")
    (row,) = written_rows(tmp_path, "caption", ["An acid."], {1: failed})
    assert (row["status"], row["answer"], row["text"]) == ("error", "", "An ac")
