"""What is told of a molecule, and what is left out."""

import gzip

import pytest

from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.descriptors import DESCRIPTORS
from moltc_vllm.data.holdout import Holdout, Place
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.molecule_properties import MOLECULE_PROPERTIES, read_measured, shortened
from moltc_vllm.data.properties import PROPERTY_NAMES, PropertyBook, statement

FILES = {
    "captions.csv.gz": (
        "smiles,caption\n"
        'OCC,"The molecule is a primary alcohol. It burns with a blue flame, it is said."\n'
        "CO,The molecule is methanol.\n"
    ),
    # Ethanol is written in two ways, its values agree; those of propane do not.
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


def told(book, smiles, **options):
    return {one.name: (one.value, one.text) for one in book.properties(smiles, **options)}


def test_each_property_stands_alone(folder):
    book = PropertyBook(folder, Holdout())
    ethanol = told(book, "C(O)C")
    assert list(ethanol) == [name for name in PROPERTY_NAMES if name in ethanol]
    assert ethanol["caption"][1].endswith("it is said.")
    assert ethanol["log_s"] == (
        pytest.approx(1.15),
        "The measured log solubility in water is 1.15.",
    )
    assert ethanol["log_d"][1] == "The measured logD at pH 7.4 is 0.00."  # not -0.00
    assert ethanol["bbb_permeable"] == (1, "It passes the blood-brain barrier.")
    assert ethanol["fda_approved"][1] == "It is approved by the FDA."
    assert "clinical_toxicity" not in ethanol  # not measured, and nothing else is lost
    assert ethanol["weight"] == (46.1, "The molecular weight is 46.1 g/mol.")
    assert ethanol["donors"] == (1, "The number of hydrogen bond donors is 1.")
    assert set(ethanol) >= {one.name for one in DESCRIPTORS}


def test_what_is_vague_is_left_out(folder):
    book = PropertyBook(folder, Holdout())
    assert "log_s" not in told(book, "CCC")  # two measurements that contradict one another
    assert "log_s" not in told(book, "CC")  # not plausible
    assert "bbb_permeable" not in told(book, "CC")
    methanol = told(book, "CO")
    assert "caption" not in methanol  # four words
    assert methanol["bbb_permeable"][1] == "It does not pass the blood-brain barrier."
    assert book.counts()["log_s"] == {
        "molecules": 2,
        "vague": 2,
        "unreadable": 0,
        "withheld": 0,
    }
    assert book.counts()["log_d"]["unreadable"] == 1


def test_a_solubility_that_is_held_back_is_not_told(folder):
    held = Holdout()
    held.add("solubility", ("O", "OCC"), Place("solubility", 7, "valid"))
    held.add("solubility", ("O", "C"), Place("solubility", 8, "train"))
    held.add("solvation", ("O", "C"), Place("freesolv", 9, "test"))
    book = PropertyBook(folder, held)
    assert "log_s" not in told(book, "CCO")
    assert book.withheld["log_s"] == 1
    assert "log_s" in told(book, "C")
    assert "log_s" not in told(book, "C", without=("solubility",))
    assert "log_s" in told(book, "C", without=("solvation",))


def test_an_isomer_does_not_tell_what_is_held_back(folder):
    """As the builder holds back: ESOL has no stereochemistry, the data set of solubilities has."""
    held = Holdout(flat_key)
    held.add("solubility", ("C[C@H](N)O", "O"), Place("solubility", 7, "test"))
    path = folder / "prop_esol.csv.gz"
    path.write_bytes(gzip.compress(b"smiles,log_s_mol_per_l\nCC(N)O,0.3\nCC(N)N,0.4\n"))
    book = PropertyBook(folder, held)
    assert "log_s" not in told(book, "CC(N)O")
    assert "log_s" in told(book, "CC(N)N")


@pytest.mark.parametrize(
    ("cells", "value", "unreadable", "vague"),
    [
        (["1.1", "n/a"], 1.1, 1, 0),  # one bad cell costs no good one
        (["1.1", "nan"], 1.1, 0, 0),  # pandas' missing number
        (["0"], 0.0, 0, 0),
        (["nan"], None, 0, 0),
        (["n/a"], None, 1, 0),
        (["1", "9"], None, 0, 1),
    ],
)
def test_cells_of_a_molecule(folder, cells, value, unreadable, vague):
    rows = "".join(f"CCO,{cell}\n" for cell in cells)
    path = folder / "prop_esol.csv.gz"
    path.write_bytes(gzip.compress(f"smiles,log_s_mol_per_l\n{rows}".encode()))
    known = read_measured(MOLECULE_PROPERTIES[0], folder)
    assert known.values == ({} if value is None else {"CCO": value})
    assert (known.unreadable, known.vague) == (unreadable, vague)


def test_what_is_not_plausible_is_not_told(folder):
    long = told(PropertyBook(folder, Holdout()), "C" * 300)
    assert "weight" not in long  # over 3,000 g/mol
    assert long["donors"][0] == 0


def test_a_molecule_that_cannot_be_read(folder):
    with pytest.raises(MoleculeError):
        PropertyBook(folder, Holdout()).properties("C1CC")


def test_captions_end_with_a_sentence():
    assert shortened("It is a dye (No. 7) of 2.5 nm. W" + "ord w" * 30 + ".") == (
        "It is a dye (No. 7) of 2.5 nm."
    )
    assert shortened("word " * 31) is None
    assert shortened("word " * 30) == " ".join(["word"] * 30)
    assert shortened("Too short.") is None


def test_the_statement_speaks_of_those_that_are_known(folder):
    book = PropertyBook(folder, Holdout())
    known = [book.properties("CCO")[-1:], [], book.properties("CO")[-2:]]
    assert statement(("solute", "solvent", "drug 3"), known) == (
        "Solute: The formal charge is 0. "
        "Drug 3: The fraction of sp3 carbons is 1.00. The formal charge is 0."
    )


def test_every_value_of_a_table_has_a_text():
    for one in MOLECULE_PROPERTIES:
        for value in one.bounds:
            assert one.text(value).endswith(".")
