"""What may be trained on: rows that no other data set holds back."""

import pytest

from moltc_vllm.data import COLUMNS
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.splits import read_parts
from tests.data.small import write

S_BUTANOL, R_BUTANOL = "CC[C@H](C)O", "CC[C@@H](C)O"


@pytest.fixture
def folder(tmp_path):
    """FreeSolv holds one isomer back, both CombiSolv sets know others."""
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
        source = DATASETS[name]
        columns = COLUMNS[source.task]
        lines = [
            {
                columns.molecules[0]: one,
                columns.molecules[1]: two,
                columns.target: -1,
                "split": split,
            }
            for one, two, split in own
        ]
        write(tmp_path / source.file, lines)
    return tmp_path


def kept(parts, split):
    return [row.molecules for row in parts.rows[split]]


def test_isomers_in_other_data_sets_do_not_tell_an_answer(folder):
    parts = read_parts(["combisolv_exp", "combisolv_qm", "freesolv"], folder)
    exp, qm = parts["combisolv_exp"], parts["combisolv_qm"]
    # Neither sec-butanol in water nor ethanol, of which the one row is tested; isomers of the
    # same data set are rows of their own.
    assert kept(exp, "train") == [("F/C=C/F", "C"), ("CCC", "O")]
    assert len(exp.rows["test"]) == 3
    assert exp.held_back == {"train": 2, "valid": 0, "test": 0}
    assert kept(qm, "train") == [("C", "O")]
    assert kept(qm, "valid") == []  # of lower rank than a test part
    # What a train part of others has may be tested here.
    assert len(parts["freesolv"].rows["test"]) == 1


def test_it_is_the_same_whatever_else_is_read(folder):
    names = ["combisolv_exp", "combisolv_qm", "freesolv"]
    together = read_parts(names, folder)
    for name in names:
        assert read_parts([name], folder)[name] == together[name]


def test_what_counts_as_the_same_molecule():
    assert flat_key(S_BUTANOL) == flat_key(R_BUTANOL) == flat_key("OC(C)CC")
