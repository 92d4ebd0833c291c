"""Splits in which molecules or scaffolds are new."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.data.dataset import Row, read_split_rows
from moltc_vllm.data.datasets import DATASETS
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

# So many that none is common, see `COMMON`.
CHAINS = ["C" * n + end for n in range(1, 31) for end in ("O", "N", "F", "Cl")]


def made_up(seed, count=200, molecules=CHAINS):
    draw = random.Random(seed)
    return [Row(n, (draw.choice(molecules), draw.choice(molecules)), 1.0) for n in range(count)]


def train_rows(name, limit=4000):
    source = DATASETS[name]
    rows = read_split_rows(data_dir() / source.file, get_task(source.task))
    return [row for split, row in rows if split == "train" and row.target is not None][:limit]


def keys(rows, key=flat_key):
    return {key(smiles) for row in rows for smiles in row.molecules}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.6))
def test_every_row_is_in_one_part_and_its_label_is_true(seed, fraction):
    rows = made_up(seed)
    parts = unseen_split(rows, seed, fraction)
    numbers = sorted(row.number for part in parts.values() for row in part)
    assert numbers == [row.number for row in rows]
    seen = keys(parts[KNOWN])
    for label, new in ((KNOWN, 0), (ONE_UNSEEN, 1), (BOTH_UNSEEN, 2)):
        for row in parts[label]:
            assert sum(flat_key(smiles) not in seen for smiles in row.molecules) == new


def test_the_seed_decides_and_the_order_does_not():
    rows = made_up(1)
    one = unseen_split(rows, 3)
    assert one[ONE_UNSEEN]
    assert one == unseen_split(rows, 3) != unseen_split(rows, 4)
    turned = unseen_split(rows[::-1], 3)
    assert {name: part[::-1] for name, part in turned.items()} == one


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_a_fraction_is_between_0_and_1(fraction):
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        unseen_split(made_up(0), fraction=fraction)


@pytest.mark.parametrize("name", ["combisolv_exp", "deep4chem_absorption", "chchminer"])
def test_real_rows(name):
    rows = train_rows(name)
    parts = unseen_split(rows)
    assert 0.6 < len(parts[KNOWN]) / len(rows) < 0.95
    assert len(parts[ONE_UNSEEN]) > 0.05 * len(rows)
    assert parts[BOTH_UNSEEN]
    seen = keys(parts[KNOWN])
    for row in parts[BOTH_UNSEEN]:
        assert not seen.intersection(map(flat_key, row.molecules))


def test_unseen_solvents():
    """New solvents among known solutes; the common ones, which carry the data, stay known."""
    rows = train_rows("combisolv_exp", 10_000)
    parts = unseen_split(rows, roles=(1,))
    seen = keys(parts[KNOWN])
    new = {row.molecules[1] for row in parts[ONE_UNSEEN] if flat_key(row.molecules[1]) not in seen}
    assert 5 < len(new) < 60
    assert "O" in {row.molecules[1] for row in parts[KNOWN]}
    assert len(parts[ONE_UNSEEN]) > 200
    of_solutes = unseen_split(rows, roles=(0,))
    assert of_solutes[ONE_UNSEEN] != parts[ONE_UNSEEN]


def test_one_solvent_for_all():
    rows = train_rows("freesolv")
    parts = unseen_split(rows, fraction=0.3)
    assert parts[ONE_UNSEEN]
    assert not parts[BOTH_UNSEEN]
    assert unseen_split(rows, fraction=0.3, roles=(1,))[KNOWN] == rows


def test_stereoisomers_are_one_molecule():
    assert flat_key("C[C@H](N)O") == flat_key("C[C@@H](N)O") == flat_key("CC(N)O")
    assert flat_key("[2H]O[2H]") == flat_key("O")
    assert flat_key("F/C=C/F") == flat_key("F/C=C\\F")
    assert flat_key("C1CC") == "C1CC"


def test_scaffolds():
    assert scaffold_key("Cc1ccccc1O") == "c1ccccc1"
    assert scaffold_key("CCO") is None
    assert scaffold_key("C1CC") is None
    rows = train_rows("deep4chem_absorption", 2000)
    parts = unseen_split(rows, by="scaffold")
    seen = keys(parts[KNOWN], scaffold_key)
    assert parts[ONE_UNSEEN]
    for row in parts[ONE_UNSEEN]:
        assert sum(scaffold_key(m) not in seen | {None} for m in row.molecules) == 1


def test_a_molecule_is_set_aside_in_every_data_set():
    sets = {"a": made_up(1), "b": made_up(2)}
    found = unseen_splits(sets, seed=5, fraction=0.2)
    trained = {smiles for parts in found.rows.values() for smiles in keys(parts[KNOWN])}
    assert found.aside
    assert not trained & found.aside
    assert all(found.is_aside(smiles) for smiles in found.aside)
    alone = unseen_split(sets["a"], seed=5, fraction=0.2)
    assert alone[KNOWN] == found.rows["a"][KNOWN]


def test_a_larger_fraction_sets_aside_the_same_and_more():
    few, many = (unseen_splits({"": made_up(1)}, fraction=part).aside for part in (0.1, 0.3))
    assert few < many
    assert 0.2 * len(CHAINS) < len(many) < 0.4 * len(CHAINS)


def test_a_common_molecule_is_never_set_aside():
    rows = [*made_up(1), *(Row(n, ("O", CHAINS[n % 100]), 1.0) for n in range(200, 300))]
    for seed in range(20):
        assert "O" not in unseen_splits({"": rows}, seed=seed, fraction=0.9).aside


def test_a_molecule_whose_partners_were_all_set_aside_is_unseen_too():
    bromide, partner = "Brc1ccccc1", CHAINS[0]
    rows = [*made_up(1), Row(999, (bromide, partner), 1.0)]
    found = [unseen_splits({"": rows}, seed=seed, fraction=0.3) for seed in range(40)]
    without = [one for one in found if one.is_aside(partner)]
    assert len(without) > 5  # in most of which the bromide was not drawn
    for one in without:
        assert rows[-1] in one.rows[""][BOTH_UNSEEN]
        assert one.is_aside(bromide)
