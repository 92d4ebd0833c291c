"""Splits in which some molecules or scaffolds are unseen."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.data.dataset import Row, read_split_rows
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.unseen import (
    BOTH_UNSEEN,
    KNOWN,
    ONE_UNSEEN,
    scaffold_key,
    unseen_split,
    unseen_splits,
)
from moltc_vllm.tasks import get_task
from tests.paths import data_dir

# Enough molecules that no one exceeds the fraction `COMMON`.
CHAINS = ["C" * n + end for n in range(1, 31) for end in ("O", "N", "F", "Cl")]


def random_rows(seed, count=200, molecules=CHAINS):
    generator = random.Random(seed)
    return [
        Row(number, (generator.choice(molecules), generator.choice(molecules)), 1.0)
        for number in range(count)
    ]


def train_rows(name, limit=4000):
    spec = DATASETS[name]
    rows = read_split_rows(data_dir() / spec.file, get_task(spec.task))
    return [row for split, row in rows if split == "train" and row.target is not None][:limit]


def keys(rows, key=flat_key):
    return {key(smiles) for row in rows for smiles in row.molecules}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.6))
def test_every_row_is_in_the_part_of_its_unseen_molecules(seed, fraction):
    rows = random_rows(seed)
    parts = unseen_split(rows, seed, fraction)
    numbers = sorted(row.number for part in parts.values() for row in part)
    assert numbers == [row.number for row in rows]
    seen = keys(parts[KNOWN])
    for part, unseen in ((KNOWN, 0), (ONE_UNSEEN, 1), (BOTH_UNSEEN, 2)):
        for row in parts[part]:
            assert sum(flat_key(smiles) not in seen for smiles in row.molecules) == unseen


def test_unseen_split_depends_on_the_seed_and_not_on_the_order():
    rows = random_rows(1)
    parts = unseen_split(rows, 3)
    assert parts[ONE_UNSEEN]
    assert parts == unseen_split(rows, 3) != unseen_split(rows, 4)
    reversed_parts = unseen_split(rows[::-1], 3)
    assert {name: part[::-1] for name, part in reversed_parts.items()} == parts


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_fraction_outside_0_and_1_is_refused(fraction):
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        unseen_split(random_rows(0), fraction=fraction)


@pytest.mark.parametrize("name", ["combisolv_exp", "deep4chem_absorption", "chchminer"])
def test_unseen_split_of_the_staged_data(name):
    rows = train_rows(name)
    parts = unseen_split(rows)
    assert 0.6 < len(parts[KNOWN]) / len(rows) < 0.95
    assert len(parts[ONE_UNSEEN]) > 0.05 * len(rows)
    assert parts[BOTH_UNSEEN]
    seen = keys(parts[KNOWN])
    for row in parts[BOTH_UNSEEN]:
        assert not seen.intersection(map(flat_key, row.molecules))


def test_unseen_solvents_with_known_solutes():
    """Common solvents, which are in most rows, are never unseen."""
    rows = train_rows("combisolv_exp", 10_000)
    parts = unseen_split(rows, roles=(1,))
    seen = keys(parts[KNOWN])
    solvents = {row.molecules[1] for row in parts[ONE_UNSEEN]}
    assert 5 < len([smiles for smiles in solvents if flat_key(smiles) not in seen]) < 60
    assert "O" in {row.molecules[1] for row in parts[KNOWN]}
    assert len(parts[ONE_UNSEEN]) > 200
    unseen_solutes = unseen_split(rows, roles=(0,))
    assert unseen_solutes[ONE_UNSEEN] != parts[ONE_UNSEEN]


def test_only_solvent_is_never_unseen():
    rows = train_rows("freesolv")
    parts = unseen_split(rows, fraction=0.3)
    assert parts[ONE_UNSEEN]
    assert not parts[BOTH_UNSEEN]
    assert unseen_split(rows, fraction=0.3, roles=(1,))[KNOWN] == rows


def test_flat_key_ignores_stereochemistry_and_isotopes():
    assert flat_key("C[C@H](N)O") == flat_key("C[C@@H](N)O") == flat_key("CC(N)O")
    assert flat_key("[2H]O[2H]") == flat_key("O")
    assert flat_key("F/C=C/F") == flat_key("F/C=C\\F")
    assert flat_key("C1CC") == "C1CC"


def test_scaffold_key_is_none_without_rings_or_for_bad_smiles():
    assert scaffold_key("Cc1ccccc1O") == "c1ccccc1"
    assert scaffold_key("CCO") is None
    assert scaffold_key("C1CC") is None


def test_unseen_split_by_scaffold():
    rows = train_rows("deep4chem_absorption", 2000)
    parts = unseen_split(rows, by="scaffold")
    seen = keys(parts[KNOWN], scaffold_key)
    assert parts[ONE_UNSEEN]
    for row in parts[ONE_UNSEEN]:
        assert sum(scaffold_key(smiles) not in seen | {None} for smiles in row.molecules) == 1


def test_molecule_is_excluded_in_every_data_set():
    datasets = {"a": random_rows(1), "b": random_rows(2)}
    splits = unseen_splits(datasets, seed=5, fraction=0.2)
    trained = {smiles for parts in splits.rows.values() for smiles in keys(parts[KNOWN])}
    assert splits.excluded
    assert not trained & splits.excluded
    assert all(splits.is_excluded(smiles) for smiles in splits.excluded)
    alone = unseen_split(datasets["a"], seed=5, fraction=0.2)
    assert alone[KNOWN] == splits.rows["a"][KNOWN]


def test_larger_fraction_excludes_the_same_molecules_and_more():
    rows = {"": random_rows(1)}
    few, many = (unseen_splits(rows, fraction=fraction).excluded for fraction in (0.1, 0.3))
    assert few < many
    assert 0.2 * len(CHAINS) < len(many) < 0.4 * len(CHAINS)


def test_common_molecule_is_never_excluded():
    rows = [*random_rows(1), *(Row(n, ("O", CHAINS[n % 100]), 1.0) for n in range(200, 300))]
    for seed in range(20):
        assert "O" not in unseen_splits({"": rows}, seed=seed, fraction=0.9).excluded


def test_molecule_with_excluded_partners_only_is_excluded():
    bromide, partner = "Brc1ccccc1", CHAINS[0]
    rows = [*random_rows(1), Row(999, (bromide, partner), 1.0)]
    samples = [unseen_splits({"": rows}, seed=seed, fraction=0.3) for seed in range(40)]
    without_partner = [splits for splits in samples if splits.is_excluded(partner)]
    assert len(without_partner) > 5  # in most of them the bromide itself was not sampled
    for splits in without_partner:
        assert rows[-1] in splits.rows[""][BOTH_UNSEEN]
        assert splits.is_excluded(bromide)
