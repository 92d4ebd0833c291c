"""Train and valid rows contain no pair that is scored."""

import pytest
from baselines.problem import SCORABLE_DATASETS, Problem, read_published, read_unseen

from moltc_vllm.data import Row
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.keys import unordered
from moltc_vllm.data.unseen import scaffold_key
from tests.benchmarks.small_datasets import (
    SOLUBILITY_COLUMNS,
    SOLVATION_COLUMNS,
    write_dataset,
    write_solubility,
)
from tests.paths import data_dir


def pairs(rows):
    return {unordered(row.molecules) for row in rows}


def test_published_split_of_a_data_set(tmp_path):
    write_solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    assert [row.target for row in problem.train] == [1, 2, 6]
    assert [row.target for row in problem.valid] == [4]
    assert [(row.number, row.target) for row in problem.test_rows] == [(6, 2), (7, 5)]


def test_scored_pairs_are_removed_from_additional_data_sets(tmp_path):
    freesolv = [
        ("C", "O", 1, "train"),
        ("N", "O", 2, "valid"),
        ("CO", "O", 3, "test"),
        ("CC(N)O", "O", 3, "test"),
    ]
    combisolv = [
        ("C", "O", 1, "train"),
        ("O", "CO", 3, "train"),  # a scored pair in the other order
        ("N", "O", 2, "train"),
        ("C[C@H](N)O", "O", 3, "train"),  # an isomer of a scored pair
        ("CCO", "O", 5, "train"),
        ("CCC", "O", 6, "test"),
    ]
    write_dataset(tmp_path, "solv_freesolv", SOLVATION_COLUMNS, freesolv)
    write_dataset(tmp_path, "solv_combisolv_exp", SOLVATION_COLUMNS, combisolv)
    problem = read_published("freesolv", tmp_path, also=["combisolv_exp", "freesolv"])
    assert [row.molecules for row in problem.train] == [("C", "O"), ("C", "O"), ("CCO", "O")]
    assert [row.molecules for row in problem.valid] == [("N", "O")]


def test_problem_refuses_scored_pair_among_train_or_valid_rows(tmp_path):
    write_solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    swapped = Row(9, ("O", "CN"), 2.0)
    for train, valid in (((swapped,), ()), ((), (swapped,))):
        with pytest.raises(ValueError, match="a scored pair is also among"):
            Problem("solubility", problem.task, train, valid, problem.tests)


def test_additional_data_set_of_another_task_is_refused(tmp_path):
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
def test_parts_of_real_data_sets_are_disjoint(name, also, scored, related):
    problem = read_published(name, data_dir(), also=also, related=related)
    assert len(problem.test_rows) == scored
    assert pairs(problem.train).isdisjoint(pairs(problem.test_rows) | pairs(problem.valid))
    assert pairs(problem.valid).isdisjoint(pairs(problem.test_rows))


def test_unseen_split_holds_molecules_out(tmp_path, monkeypatch):
    solutes = ["C" * length for length in range(1, 41)]
    solvents = ["C" * length + "O" for length in range(1, 31)]
    product = [(solute, solvent) for solute in solutes for solvent in solvents]
    parts = ["valid" if index % 7 == 3 else "train" for index in range(len(product))]
    rows = [(*pair, 1, part) for pair, part in zip(product, parts, strict=True)]
    rows.append(("N", "O", 2, "test"))
    write_dataset(tmp_path, "solv_solubility_logs", SOLUBILITY_COLUMNS, rows)
    monkeypatch.setattr("moltc_vllm.data.unseen.DATASETS", {"solubility": DATASETS["solubility"]})
    problem = read_unseen("solubility", tmp_path, fraction=0.3)
    known = {smiles for row in problem.train for smiles in row.molecules}
    for part, unseen in (("one_unseen", 1), ("both_unseen", 2)):
        assert len(problem.tests[part].rows) > 20
        for row in problem.tests[part].rows:
            assert sum(smiles not in known for smiles in row.molecules) == unseen
    assert all(known.issuperset(row.molecules) for row in problem.valid)
    numbers = sorted(row.number for row in (*problem.train, *problem.test_rows))
    assert numbers == [number for number, part in enumerate(parts, 1) if part == "train"]
    other_seed = read_unseen("solubility", tmp_path, fraction=0.3, seed=1)
    assert pairs(other_seed.test_rows) != pairs(problem.test_rows)


def test_data_set_with_lists_is_not_scorable():
    assert "twosides" not in {spec.name for spec in SCORABLE_DATASETS}
    assert len(SCORABLE_DATASETS) == len(DATASETS) - 1


def test_scaffold_split_holds_scaffolds_out(tmp_path, monkeypatch):
    rings = [f"C1{'C' * size}1" for size in range(2, 32)]
    solutes = ["C" * length + ring for ring in rings for length in (1, 2)]
    rows = [(solute, solvent, 1, "train") for solute in solutes for solvent in ("O", "CO")]
    rows += [(solutes[0], "CCO", 1, "valid"), ("N", "O", 2, "test")]
    write_dataset(tmp_path, "solv_solubility_logs", SOLUBILITY_COLUMNS, rows)
    monkeypatch.setattr("moltc_vllm.data.unseen.DATASETS", {"solubility": DATASETS["solubility"]})
    problem = read_unseen("solubility", tmp_path, by="scaffold", fraction=0.4)
    known, scored = (
        {scaffold_key(row.molecules[0]) for row in rows}
        for rows in (problem.train, problem.test_rows)
    )
    assert known
    assert scored
    assert known.isdisjoint(scored)


@pytest.mark.parametrize("computed", [False, True])
def test_computed_rows_have_no_scored_pair(tmp_path, computed):
    exp = [("C", "O", 1, "train"), ("CC", "O", 2, "valid"), ("C[C@H](N)O", "O", 3, "test")]
    qm = [("C", "O", 1, "train"), ("CC(N)O", "O", 3, "train"), ("CC", "O", 2, "train")]
    write_dataset(tmp_path, "solv_combisolv_exp", SOLVATION_COLUMNS, exp)
    write_dataset(tmp_path, "solv_combisolv_qm", SOLVATION_COLUMNS, qm)
    problem = read_published("combisolv_exp", tmp_path, computed=computed)
    assert [row.molecules for row in problem.computed] == ([("C", "O")] if computed else [])
    assert problem.molecules == ["C", "O", "CC", "C[C@H](N)O"]
