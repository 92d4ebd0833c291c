"""Splits without the rows that another data set holds out."""

import pytest

from moltc_vllm.data import COLUMNS
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.splits import read_splits
from tests.data.small import write

S_BUTANOL, R_BUTANOL = "CC[C@H](C)O", "CC[C@@H](C)O"


@pytest.fixture
def folder(tmp_path):
    """Data files in which FreeSolv holds out an isomer of molecules in both CombiSolv sets."""
    rows = {
        "freesolv": [(S_BUTANOL, "O", "test"), ("CCO", "O", "valid"), ("CCC", "O", "train")],
        "combisolv_exp": [
            (R_BUTANOL, "O", "train"),
            ("CC(O)CC", "O", "test"),
            ("CCO", "O", "train"),
            ("CCO", "O", "test"),
            ("F/C=C/F", "C", "train"),
            ("F/C=C\\F", "C", "test"),
            ("CCC", "O", "train"),
        ],
        "combisolv_qm": [("O", S_BUTANOL, "train"), ("O", R_BUTANOL, "valid"), ("C", "O", "train")],
    }
    for name, own in rows.items():
        spec = DATASETS[name]
        columns = COLUMNS[spec.task]
        lines = [
            {
                columns.molecules[0]: one,
                columns.molecules[1]: two,
                columns.target: -1,
                "split": split,
            }
            for one, two, split in own
        ]
        write(tmp_path / spec.file, lines)
    return tmp_path


def kept(dataset, split):
    return [row.molecules for row in dataset.rows[split]]


def test_isomers_of_held_out_pairs_are_removed_across_data_sets(folder):
    datasets = read_splits(["combisolv_exp", "combisolv_qm", "freesolv"], folder)
    exp, qm = datasets["combisolv_exp"], datasets["combisolv_qm"]
    # Sec-butanol in water is tested in FreeSolv, ethanol in the data set itself. Isomers within a
    # data set are different rows.
    assert kept(exp, "train") == [("F/C=C/F", "C"), ("CCC", "O")]
    assert len(exp.rows["test"]) == 3
    assert exp.held_out == {"train": 2, "valid": 0, "test": 0}
    assert kept(qm, "train") == [("C", "O")]
    assert kept(qm, "valid") == []  # lower rank than a test split
    # A pair in a train split of another data set may be tested here.
    assert len(datasets["freesolv"].rows["test"]) == 1


def test_splits_do_not_depend_on_the_other_names(folder):
    names = ["combisolv_exp", "combisolv_qm", "freesolv"]
    together = read_splits(names, folder)
    for name in names:
        assert read_splits([name], folder)[name] == together[name]


def test_flat_key_ignores_stereochemistry():
    assert flat_key(S_BUTANOL) == flat_key(R_BUTANOL) == flat_key("OC(C)CC")
