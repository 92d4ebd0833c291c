"""What is learned from knows nothing of what is scored."""

import pytest
from baselines.problem import SCORED, Problem, read_published, read_unseen

from moltc_vllm.data import Row
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.keys import unordered
from tests.benchmarks.made_up import SOLUTION, SOLVATION, solubility, write
from tests.paths import data_dir


def pairs(rows):
    return {unordered(row.molecules) for row in rows}


def test_rows_of_a_data_set(tmp_path):
    solubility(tmp_path)
    read = read_published("solubility", tmp_path)
    assert [row.target for row in read.train] == [1, 2, 6]
    assert [row.target for row in read.valid] == [4]
    assert [(row.number, row.target) for row in read.asked] == [(6, 2), (7, 5)]


def test_a_scored_pair_is_not_learned_from(tmp_path):
    of_freesolv = [("C", "O", 1, "train"), ("N", "O", 2, "valid"), ("CO", "O", 3, "test")]
    of_freesolv.append(("CC(N)O", "O", 3, "test"))
    of_combisolv = [
        ("C", "O", 1, "train"),
        ("O", "CO", 3, "train"),  # the other way round: the same pair
        ("N", "O", 2, "train"),
        ("C[C@H](N)O", "O", 3, "train"),  # an isomer of a tested one
        ("CCO", "O", 5, "train"),
        ("CCC", "O", 6, "test"),
    ]
    write(tmp_path, "solv_freesolv", SOLVATION, of_freesolv)
    write(tmp_path, "solv_combisolv_exp", SOLVATION, of_combisolv)
    read = read_published("freesolv", tmp_path, also=["combisolv_exp", "freesolv"])
    assert [row.molecules for row in read.train] == [("C", "O"), ("C", "O"), ("CCO", "O")]
    assert [row.molecules for row in read.valid] == [("N", "O")]


def test_a_problem_refuses_such_a_pair(tmp_path):
    solubility(tmp_path)
    read = read_published("solubility", tmp_path)
    swapped = Row(9, ("O", "CN"), 2.0)
    for train, valid in (((swapped,), ()), ((), (swapped,))):
        with pytest.raises(ValueError, match="is also to be scored"):
            Problem("solubility", read.task, train, valid, read.tests)


def test_only_data_sets_of_the_same_task_are_learned_from(tmp_path):
    with pytest.raises(ValueError, match="solubility is of task solubility, freesolv of solvation"):
        read_published("freesolv", tmp_path, also=["solubility"])


@pytest.mark.parametrize("related", [False, True])
@pytest.mark.parametrize(
    ("name", "also", "scored"),
    [
        # Counted with zcat and awk.
        ("combisolv_exp", ["freesolv"], 632),
        ("freesolv", ["combisolv_exp"], 54),
        ("deep4chem_emission", [], 1445),
        ("chchminer", [], 2972),
    ],
)
def test_the_staged_data_sets(name, also, scored, related):
    read = read_published(name, data_dir(), also=also, related=related)
    assert len(read.asked) == scored
    assert pairs(read.train).isdisjoint(pairs(read.asked) | pairs(read.valid))
    assert pairs(read.valid).isdisjoint(pairs(read.asked))


def test_unseen_molecules(tmp_path, monkeypatch):
    solutes = ["C" * length for length in range(1, 41)]
    solvents = ["C" * length + "O" for length in range(1, 31)]
    every = [(one, other) for one in solutes for other in solvents]
    parts = ["valid" if place % 7 == 3 else "train" for place in range(len(every))]
    rows = [(*pair, 1, part) for pair, part in zip(every, parts, strict=True)]
    write(tmp_path, "solv_solubility_logs", SOLUTION, [*rows, ("N", "O", 2, "test")])
    monkeypatch.setattr("moltc_vllm.data.unseen.DATASETS", {"solubility": DATASETS["solubility"]})
    read = read_unseen("solubility", tmp_path, fraction=0.3)
    known = {smiles for row in read.train for smiles in row.molecules}
    for part, unseen in (("one_unseen", 1), ("both_unseen", 2)):
        assert len(read.tests[part].rows) > 20
        for row in read.tests[part].rows:
            assert sum(smiles not in known for smiles in row.molecules) == unseen
    assert all(known.issuperset(row.molecules) for row in read.valid)
    whole = [row.number for row in (*read.train, *read.asked)]
    assert sorted(whole) == [place for place, part in enumerate(parts, 1) if part == "train"]
    again = read_unseen("solubility", tmp_path, fraction=0.3, seed=1)
    assert pairs(again.asked) != pairs(read.asked)


def test_lists_of_side_effects_are_left_to_others():
    assert "twosides" not in {source.name for source in SCORED}
    assert len(SCORED) == len(DATASETS) - 1
