"""Rates and effects of single molecules."""

import numpy as np
import pytest
from baselines import rates
from baselines.problem import Problem

from moltc_vllm.data import COLUMNS, Dataset, Row
from moltc_vllm.tasks import get_task


def make_problem(task, train, test, valid=()):
    """Make a problem from triples of two molecules and a target."""
    triples = [*train, *valid, *test]
    rows = [Row(i, (a, b), target) for i, (a, b, target) in enumerate(triples, 1)]
    known = len(train) + len(valid)
    scored = tuple(rows[known:])
    data = Dataset(
        "made.csv", "0" * 64, COLUMNS[task], "test", len(scored), len(scored), scored, ()
    )
    parts = tuple(rows[: len(train)]), tuple(rows[len(train) : known])
    return Problem("made", get_task(task), *parts, {"test": data})


def probabilities(problem):
    """Probability of label 1 for each scored row."""
    answers = rates.solve(problem).answers.values()
    return [a.confidence if a.label_id == 1 else 1 - a.confidence for a in answers]


def test_drug_that_interacts_often_is_likelier_to_interact():
    train = [("A", partner, 1) for partner in "CDEF"] + [("B", partner, 0) for partner in "CDEF"]
    scored = [("A", "X", 1), ("X", "A", 1), ("B", "X", 0), ("X", "Y", 0)]
    often, swapped, rarely, unknown = probabilities(make_problem("ddi", train, scored))
    # A interacts in 4 of 4 pairs, to which 2 average pairs are added.
    assert often == pytest.approx((4 + 2 * 0.5) / (4 + 2))
    assert swapped == often
    assert rarely == pytest.approx(2 * 0.5 / (4 + 2))
    assert unknown == pytest.approx(0.5)


def test_rates_of_two_known_drugs_are_combined():
    train = [("A", partner, 1) for partner in "CDEF"] + [("B", partner, 0) for partner in "CDEF"]
    problem = make_problem("ddi", train, [("A", "B", 0)])
    assert probabilities(problem) == pytest.approx([0.5])  # their log odds cancel


def test_types_depend_on_the_role_of_the_drug():
    train = [("A", "B", 4), ("A", "C", 4), ("D", "A", 47), ("E", "A", 47)]
    scored = [("A", "X", 4), ("X", "A", 47)]
    answers = rates.solve(make_problem("ddi_type", train, scored)).answers.values()
    assert [answer.label_id for answer in answers] == [4, 47]


def test_effects_of_numbers_add_up():
    solutes, solvents = {"A": -1.0, "B": 3.0, "C": 0.5}, {"O": 2.0, "N": -2.0}
    train = [
        (a, b, x + y)
        for a, x in solutes.items()
        for b, y in solvents.items()
        if (a, b) != ("C", "N")
    ] * 40
    scored = [("C", "N", -1.5), ("X", "Y", 0.0)]
    problem = make_problem("solubility", train, scored)
    known, unknown = (answer.value for answer in rates.solve(problem).answers.values())
    assert known == pytest.approx(-1.5, abs=0.15)
    assert unknown == pytest.approx(np.mean([row.target for row in problem.train]))
