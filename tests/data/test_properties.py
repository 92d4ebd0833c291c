"""Properties of molecules: the stated ones and those that are left out."""

import gzip

import pytest

from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.descriptors import DESCRIPTORS
from moltc_vllm.data.holdout import Holdout, RowLocation
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.molecule_properties import (
    MOLECULE_PROPERTIES,
    read_property_values,
    shorten_caption,
)
from moltc_vllm.data.properties import PROPERTY_NAMES, PropertyTable, format_properties

FILES = {
    "captions.csv.gz": (
        "smiles,caption\n"
        'OCC,"The molecule is a primary alcohol. It burns with a blue flame, it is said."\n'
        "CO,The molecule is methanol.\n"
    ),
    # The values of the two SMILES of ethanol agree; those of propane do not.
    "prop_esol.csv.gz": "smiles,log_s_mol_per_l\nCCO,1.1\nOCC,1.2\nCCC,-1\nCCC,-2\nCC,99\nC,-0.9\n",
    "prop_lipophilicity.csv.gz": "smiles,log_d_ph7_4\nCCO,-0.001\nC1CC,1\n",
    "prop_bbbp.csv.gz": "smiles,bbb_permeable\nCCO,1\nCO,0\nCC,1\nCC,0\n",
    "prop_clintox.csv.gz": "smiles,fda_approved,clinical_trial_toxicity\nCCO,1,\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    return tmp_path


def describe(table, smiles, **options):
    """Return value and text of each property by name."""
    return {each.name: (each.value, each.text) for each in table.properties(smiles, **options)}


def test_properties_have_a_value_and_a_text_each(folder):
    table = PropertyTable(folder, Holdout())
    ethanol = describe(table, "C(O)C")
    assert list(ethanol) == [name for name in PROPERTY_NAMES if name in ethanol]
    assert ethanol["caption"][1].endswith("it is said.")
    assert ethanol["log_s"] == (
        pytest.approx(1.15),
        "The measured log solubility in water is 1.15.",
    )
    assert ethanol["log_d"][1] == "The measured logD at pH 7.4 is 0.00."  # not -0.00
    assert ethanol["bbb_permeable"] == (1, "It passes the blood-brain barrier.")
    assert ethanol["fda_approved"][1] == "It is approved by the FDA."
    assert "clinical_toxicity" not in ethanol  # the cell is empty; the other properties are kept
    assert ethanol["weight"] == (46.1, "The molecular weight is 46.1 g/mol.")
    assert ethanol["donors"] == (1, "The number of hydrogen bond donors is 1.")
    assert set(ethanol) >= {descriptor.name for descriptor in DESCRIPTORS}


def test_vague_values_are_left_out(folder):
    table = PropertyTable(folder, Holdout())
    assert "log_s" not in describe(table, "CCC")  # two measurements that contradict one another
    assert "log_s" not in describe(table, "CC")  # not plausible
    assert "bbb_permeable" not in describe(table, "CC")
    methanol = describe(table, "CO")
    assert "caption" not in methanol  # four words
    assert methanol["bbb_permeable"][1] == "It does not pass the blood-brain barrier."
    assert table.counts()["log_s"] == {
        "molecules": 2,
        "vague": 2,
        "unreadable": 0,
        "withheld": 0,
    }
    assert table.counts()["log_d"]["unreadable"] == 1


def test_held_out_solubility_is_withheld(folder):
    holdout = Holdout()
    holdout.add("solubility", ("O", "OCC"), RowLocation("solubility", 7, "valid"))
    holdout.add("solubility", ("O", "C"), RowLocation("solubility", 8, "train"))
    holdout.add("solvation", ("O", "C"), RowLocation("freesolv", 9, "test"))
    table = PropertyTable(folder, holdout)
    assert "log_s" not in describe(table, "CCO")
    assert table.withheld["log_s"] == 1
    assert "log_s" in describe(table, "C")
    assert "log_s" not in describe(table, "C", without=("solubility",))
    assert "log_s" in describe(table, "C", without=("solvation",))


def test_isomer_of_held_out_solubility_is_withheld(folder):
    """Like the build: ESOL has no stereochemistry, the data set of solubilities has."""
    holdout = Holdout(flat_key)
    holdout.add("solubility", ("C[C@H](N)O", "O"), RowLocation("solubility", 7, "test"))
    path = folder / "prop_esol.csv.gz"
    path.write_bytes(gzip.compress(b"smiles,log_s_mol_per_l\nCC(N)O,0.3\nCC(N)N,0.4\n"))
    table = PropertyTable(folder, holdout)
    assert "log_s" not in describe(table, "CC(N)O")
    assert "log_s" in describe(table, "CC(N)N")


@pytest.mark.parametrize(
    ("cells", "value", "unreadable", "vague"),
    [
        (["1.1", "n/a"], 1.1, 1, 0),  # a bad cell does not affect the others
        (["1.1", "nan"], 1.1, 0, 0),  # pandas' missing number
        (["0"], 0.0, 0, 0),
        (["nan"], None, 0, 0),
        (["n/a"], None, 1, 0),
        (["1", "9"], None, 0, 1),
    ],
)
def test_values_of_a_molecule_are_combined(folder, cells, value, unreadable, vague):
    rows = "".join(f"CCO,{cell}\n" for cell in cells)
    path = folder / "prop_esol.csv.gz"
    path.write_bytes(gzip.compress(f"smiles,log_s_mol_per_l\n{rows}".encode()))
    table = read_property_values(MOLECULE_PROPERTIES[0], folder)
    assert table.values == ({} if value is None else {"CCO": value})
    assert (table.unreadable, table.vague) == (unreadable, vague)


def test_implausible_descriptor_is_left_out(folder):
    long = describe(PropertyTable(folder, Holdout()), "C" * 300)
    assert "weight" not in long  # over 3,000 g/mol
    assert long["donors"][0] == 0


def test_bad_smiles_is_an_error(folder):
    with pytest.raises(MoleculeError):
        PropertyTable(folder, Holdout()).properties("C1CC")


def test_shortened_caption_ends_with_a_sentence():
    assert shorten_caption("It is a dye (No. 7) of 2.5 nm. W" + "ord w" * 30 + ".") == (
        "It is a dye (No. 7) of 2.5 nm."
    )
    assert shorten_caption("word " * 31) is None
    assert shorten_caption("word " * 30) == " ".join(["word"] * 30)
    assert shorten_caption("Too short.") is None


def test_molecule_without_properties_is_left_out_of_the_text(folder):
    table = PropertyTable(folder, Holdout())
    properties = [table.properties("CCO")[-1:], [], table.properties("CO")[-2:]]
    assert format_properties(("solute", "solvent", "drug 3"), properties) == (
        "Solute: The formal charge is 0. "
        "Drug 3: The fraction of sp3 carbons is 1.00. The formal charge is 0."
    )


def test_every_measured_property_has_a_text():
    for measured in MOLECULE_PROPERTIES:
        for value in measured.bounds:
            assert measured.text(value).endswith(".")
