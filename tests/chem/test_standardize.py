"""Standardization of molecules: equal and different results, and the notes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rdkit import Chem, RDLogger

from moltc_vllm.chem import (
    STANDARDIZATIONS,
    MoleculeError,
    as_written_key,
    canonical_key,
    featurize_library,
    molecule_notes,
    packed_of,
    pair_notes,
    parse_smiles,
    standardize,
)
from moltc_vllm.chem.featurize import featurize_packed
from moltc_vllm.chem.limits import MoleculeLimits
from moltc_vllm.chem.standardize import _standardize, needs_no_cleanup
from tests.chem.known_molecules import MOLECULES
from tests.chem.writings import cleanup_writings, salts, writings

# Their parent is another fragment or charge state than the molecule itself.
_NOT_THEIR_PARENT = frozenset(
    {
        *("phenolate", "acetate", "benzoate", "methanesulfonate", "anilinium", "ethylammonium"),
        *("glycine-zwitterion", "guanidinium", "acridine-orange", "superoxide"),
    }
)


@pytest.fixture(autouse=True)
def quiet_rdkit():
    RDLogger.DisableLog("rdApp.*")
    yield
    RDLogger.EnableLog("rdApp.*")


def cleanup_key(smiles: str) -> str:
    return canonical_key(smiles, standardization="cleanup")


def parent_key(smiles: str) -> str:
    return canonical_key(smiles, standardization="parent")


def assert_same_graph(first: str, second: str) -> None:
    """Compare the graphs of two keys, each parsed and featurized anew."""
    for array, other in zip(
        *(featurize_packed(parse_smiles(key)) for key in (first, second)), strict=True
    ):
        if array is not None:
            np.testing.assert_array_equal(array, other)


def test_there_are_300_molecules():
    assert len(MOLECULES) == 300
    assert len({cleanup_key(smiles) for smiles in MOLECULES.values()}) == 300


@pytest.mark.parametrize("name", MOLECULES)
def test_writings_of_a_molecule_have_one_key(name):
    smiles = MOLECULES[name]
    key = cleanup_key(smiles)
    spellings = dict(writings(smiles))
    assert len(spellings) >= 6
    for way, spelling in spellings.items():
        assert cleanup_key(spelling) == key, (way, spelling)
        assert canonical_key(spelling) == canonical_key(smiles), (way, spelling)
        assert_same_graph(cleanup_key(spelling), key)
    for way, spelling in cleanup_writings(smiles):
        assert cleanup_key(spelling) == key, (way, spelling)
        assert_same_graph(cleanup_key(spelling), key)


@pytest.mark.parametrize("name", [name for name in MOLECULES if name not in _NOT_THEIR_PARENT])
def test_salts_of_a_molecule_have_one_parent(name):
    smiles = MOLECULES[name]
    has_carbon = Chem.MolFromSmiles(smiles).HasSubstructMatch(Chem.MolFromSmarts("[#6]"))
    for way, salt in salts(smiles) if has_carbon else ():
        assert parent_key(salt) == parent_key(smiles) == cleanup_key(smiles), (way, salt)
        assert cleanup_key(salt) != cleanup_key(smiles)
        assert any("2 fragments, largest kept" in note for note in molecule_notes(salt, "parent"))


@pytest.mark.parametrize("mode", STANDARDIZATIONS)
def test_keys_are_fixed_points(mode):
    for smiles in MOLECULES.values():
        key = canonical_key(smiles, standardization=mode)
        assert canonical_key(key, standardization=mode) == key
        assert canonical_key(key) == key
        assert as_written_key(key, standardization=mode) == key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[2H]Oc1ccccc1", "Oc1ccccc1"),
        ("[2H]O[2H]", "O"),
        ("[2H]C(Cl)(Cl)Cl", "ClC(Cl)Cl"),
        ("[2H]C([2H])([2H])S(=O)C([2H])([2H])[2H]", "C[S+](C)[O-]"),
        ("[2H]C([2H])([2H])O[2H]", "CO"),
        ("[2H]c1c([2H])c([2H])c([2H])c([2H])c1[2H]", "C1=CC=CC=C1"),
        ("[2H]C([2H])([2H])C#N", "CC#N"),
        ("C[C@H]([2H])O", "CCO"),
        ("[131I]c1ccccc1", "Ic1ccccc1"),
        ("[H]/N=C(/N)c1ccccc1", "N=C(N)c1ccccc1"),
        ("C[S+](C)[O-]", "CS(C)=O"),
        ("C[S@@+](CC)[O-]", "C[S@](=O)CC"),
        ("C[S+2](C)([O-])[O-]", "CS(C)(=O)=O"),
        ("C[S+]([O-])(C)=N", "CS(C)(=N)=O"),
        ("C[P+](C)(C)[O-]", "CP(C)(C)=O"),
        ("C[P+](C)(C)[CH2-]", "C=P(C)(C)C"),
        ("CC([O-])=C[P+](C)(C)C", "CC(=O)C=P(C)(C)C"),
        ("CN=N#N", "C[N-][N+]#N"),
        ("C=N#N", "[CH2-][N+]#N"),
        ("[CH2-][N+](=O)[O-]", "C=[N+]([O-])[O-]"),
        ("C[C+]=N[O-]", "CC#[N+][O-]"),
        ("CN(=O)=O", "C[N+](=O)[O-]"),
        ("O=n1ccccc1", "[O-][n+]1ccccc1"),
        ("CN(C)(C)=O", "C[N+](C)(C)[O-]"),
        ("O=Cl(=O)(=O)O", "[O-][Cl+3]([O-])([O-])O"),
        # Merocyanines and betaines with a neutral form, at any distance of the charges.
        ("C[n+]1ccccc1[O-]", "CN1C=CC=CC1=O"),
        ("C[n+]1ccc([O-])cc1", "CN1C=CC(=O)C=C1"),
        ("C[n+]1ccc(C=Cc2ccc([O-])cc2)cc1", "CN1C=CC(=CC=C2C=CC(=O)C=C2)C=C1"),
        (
            "C[n+]1ccc(C=CC=Cc2ccc([O-])cc2)cc1",
            "CN1C=CC(=CC=CC=C2C=CC(=O)C=C2)C=C1",
        ),
        ("C[NH+]=C(C)[O-]", "CNC(C)=O"),
        # Cations with the charge at another atom.
        ("CCn1cc[n+](C)c1", "CC[n+]1ccn(C)c1"),
        ("NC(=[NH2+])NCC", "NC(N)=[NH+]CC"),
        ("CN(C)C=CC=[N+](C)CC", "C[N+](C)=CC=CN(C)CC"),
        ("CN(C)c1ccc2nc3ccc(N(C)C)cc3[s+]c2c1", "CN(C)c1ccc2nc3ccc(=[N+](C)C)cc-3sc2c1"),
        ("CN(C)c1ccc2cc3ccc(N(C)C)cc3[o+]c2c1", "CN(C)c1ccc2cc3ccc(=[N+](C)C)cc-3oc2c1"),
        (
            "CN(C)c1ccc([C+](c2ccccc2)c2ccc(N(C)C)cc2)cc1",
            "CN(C)c1ccc(C(=C2C=CC(=[N+](C)C)C=C2)c2ccccc2)cc1",
        ),
        (
            "CCN1C(=CC=CC2=[N+](C)c3ccccc3C2(C)C)Sc2ccccc21",
            "CC[n+]1c(C=CC=C2N(C)c3ccccc3C2(C)C)sc2ccccc21",
        ),
        (
            "CCN1/C(=C/C=C/C2=[N+](C)c3ccccc3C2(C)C)C(C)(C)c2ccccc21",
            "CC[N+]1=C(/C=C/C=C2N(C)c3ccccc3C\\2(C)C)C(C)(C)c2ccccc21",
        ),
        (
            "CC1=CC=C2C=C3C=CC(CC)=[N+]3[B-](F)(F)n12",
            "Cc1ccc2n1[B-](F)(F)[N+]1=C(CC)C=CC1=C2",
        ),
        ("[NH2+]=c1cc[nH]cc1", "Nc1cc[nH+]cc1"),
        # Anions with the charge at another atom.
        ("CC(=O)[CH-]C(C)=O", "CC([O-])=CC(C)=O"),
        ("CS([O-])(=O)=NC", "C[N-]S(C)(=O)=O"),
        ("O=C1C=CC(=N[N-]c2ccccc2)C=C1", "[O-]c1ccc(N=Nc2ccccc2)cc1"),
        ("OS(=O)(=O)c1ccc([O-])cc1", "[O-]S(=O)(=O)c1ccc(O)cc1"),
        # Metals.
        ("CC(=O)O[Na]", "CC(=O)[O-].[Na+]"),
        ("[Na]Cl", "[Na+].[Cl-]"),
        ("N[Pt](N)(Cl)Cl", "[NH3]->[Pt](<-[NH3])(Cl)Cl"),
        ("N[Pt](N)(Cl)Cl", "N.N.[Cl-].[Cl-].[Pt+2]"),
        ("Cl[Ti](Cl)(Cl)Cl", "[Ti+4].[Cl-].[Cl-].[Cl-].[Cl-]"),
        ("[CH3:1][OH:2]", "CO"),
    ],
)
def test_cleanup_makes_equal(first, second):
    assert cleanup_key(first) == cleanup_key(second)
    assert_same_graph(cleanup_key(first), cleanup_key(second))
    assert cleanup_key(cleanup_key(first)) == cleanup_key(first)


@pytest.mark.parametrize(
    ("first", "second", "by_parent"),
    [
        ("Oc1ccccc1", "[O-]c1ccccc1", False),
        ("CC(=O)O", "CC(=O)[O-]", False),
        ("CCN", "CC[NH3+]", False),
        ("NCC(=O)O", "[NH3+]CC(=O)[O-]", False),
        ("CC(=O)[O-].[Na+]", "CC(=O)O", False),
        ("CCO.O", "CCO", False),
        ("C", "[C]", True),
        ("C", "[CH3]", True),
        ("CC1(C)CCCC(C)(C)N1[O]", "CC1(C)CCCC(C)(C)N1O", True),
        ("[Cl]", "Cl", True),
        ("[Na]", "[Na+]", True),
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", True),
        ("C[S@](=O)CC", "C[S@@](=O)CC", True),
        ("O=C(O)/C=C/C(=O)O", "O=C(O)/C=C\\C(=O)O", True),
        ("CC(=O)CC", "CC(O)=CC", True),
        ("O=c1cccc[nH]1", "Oc1ccccn1", True),
        ("C[n+]1cccc([O-])c1", "C[n+]1ccc([O-])cc1", True),
        ("[O-][n+]1ccccc1", "c1ccncc1", True),
        ("CS(C)=O", "CS(C)(=O)=O", True),
        ("CCC[Li]", "CCC", True),
    ],
)
def test_chemically_different_molecules_stay_different(first, second, by_parent):
    for mode in ("as-drawn", "cleanup"):
        keys = [canonical_key(smiles, standardization=mode) for smiles in (first, second)]
        assert keys[0] != keys[1], mode
    assert (parent_key(first) != parent_key(second)) == by_parent


def test_as_drawn_changes_nothing():
    for smiles in ("C[S+](C)[O-]", "[2H]O[2H]", "CC(=O)O[Na]", "CC(=O)[O-].[Na+]"):
        assert standardize(smiles, "as-drawn").smiles == smiles
        assert canonical_key(smiles) == Chem.CanonSmiles(smiles)


def test_oxoanions_of_metals_and_organometallics_stay_whole():
    for smiles in ("[O-][Mn](=O)(=O)=O", "C[Hg]C", "CCCC[Sn](CCCC)(CCCC)CCCC", "C[Si](C)(C)C"):
        assert cleanup_key(smiles) == canonical_key(smiles)


def test_disconnecting_metals_keeps_the_net_charge():
    for smiles in ("Cl[Fe-](Cl)(Cl)Cl", "O=C1O[Pt]2(OC1=O)NC1CCCCC1N2", "[Cl][Ru-2]([Cl])([Cl])Cl"):
        charges = [
            Chem.GetFormalCharge(Chem.MolFromSmiles(text)) for text in (smiles, cleanup_key(smiles))
        ]
        assert charges[0] == charges[1]


def test_parent_keeps_salts_without_carbon_whole():
    assert parent_key("[Na+].[Cl-]") == "[Cl-].[Na+]"
    assert parent_key("N[Pt](N)(Cl)Cl") == cleanup_key("N[Pt](N)(Cl)Cl")


def test_parent_keeps_charges_that_protons_cannot_remove():
    assert parent_key("C[N+](C)(C)C.[Br-]") == "C[N+](C)(C)C"
    assert parent_key("[cH-]1cccc1.[Na+]") == "c1cc[cH-]c1"


def test_double_bonds_that_share_a_charge_lose_their_mark_and_others_keep_it():
    cyanine = "CN1/C(=C/C=C/C2=[N+](C)c3ccccc3C2(C)C)C(C)(C)c2ccccc21"
    assert "/" not in cleanup_key(cyanine)
    styryl = "CN(C)c1ccc(/C=C/c2cc[n+](C)cc2)cc1"
    assert "/" in cleanup_key(styryl)
    assert "/" in cleanup_key("O=C(/C=C/c1ccc(C[NH3+])cc1)[O-]")


@pytest.mark.parametrize(
    ("smiles", "mode", "notes"),
    [
        ("CCO", "cleanup", ()),
        ("C[N+](=O)[O-]", "cleanup", ()),
        ("CN=[N+]=[N-]", "cleanup", ()),
        ("[O-][n+]1ccccc1", "cleanup", ()),
        ("F[B-]1(F)n2cccc2C=C2C=CC=[N+]21", "cleanup", ()),
        ("[CH3:1][OH:2]", "cleanup", ()),
        ("[O-]c1ccccc1", "as-drawn", ("charged",)),
        ("[O-]c1ccccc1", "cleanup", ("charged",)),
        ("[O-]c1ccccc1", "parent", ("neutralized",)),
        ("C[N+](C)(C)C", "parent", ("charged",)),
        ("[NH3+]CC(=O)[O-]", "cleanup", ("zwitterion",)),
        ("[Na+].[Cl-]", "cleanup", ("salt: 2 fragments",)),
        ("CCN.Cl", "as-drawn", ("salt: 2 fragments",)),
        ("CCN.Cl", "parent", ("salt: 2 fragments, largest kept",)),
        ("CC(=O)[O-].[Na+]", "parent", ("neutralized", "salt: 2 fragments, largest kept")),
        ("CC(=O)O[Na]", "cleanup", ("metal bonds removed", "salt: 2 fragments")),
        ("CCO.O", "cleanup", ("mixture: 2 fragments",)),
        ("[Ca+2].[Cl-].[Cl-]", "cleanup", ("salt: 3 fragments",)),
        ("CC1(C)CCCC(C)(C)N1[O]", "cleanup", ("radical",)),
        ("[C]", "as-drawn", ("radical",)),
        ("[CH3]", "cleanup", ("radical",)),
        ("[Cu+2].[Cl-].[Cl-]", "cleanup", ("salt: 3 fragments",)),
        ("[2H]O[2H]", "as-drawn", ("isotope",)),
        ("[2H]O[2H]", "cleanup", ("isotope",)),
        ("C[S+](C)[O-]", "as-drawn", ()),
        ("C[S+](C)[O-]", "cleanup", ("resonance form changed",)),
        ("C[n+]1ccc(C=Cc2ccc([O-])cc2)cc1", "as-drawn", ("zwitterion",)),
        ("C[n+]1ccc(C=Cc2ccc([O-])cc2)cc1", "cleanup", ("resonance form changed",)),
        ("OS(=O)(=O)c1ccc([O-])cc1", "cleanup", ("charged", "protons moved")),
    ],
)
def test_notes(smiles, mode, notes):
    assert molecule_notes(smiles, mode) == notes


def test_notes_of_a_pair_name_the_molecule():
    notes = pair_notes(("[O-]c1ccccc1", "[2H]O[2H]"), ("solute", "solvent"), "cleanup")
    assert notes == ("solute: charged", "solvent: isotope")
    assert pair_notes(("CCO", "O"), ("solute", "solvent"), "cleanup") == ()
    assert pair_notes(("C", "[Na+].[Cl-]"), ("drug",), "cleanup") == (
        "molecule 2: salt: 2 fragments",
    )


def _unfiltered_texts() -> list[str]:
    """Return texts that the scan lets pass, among them groups that RDKit draws with charges."""
    special = ["CN(=O)=O", "CN=N#N", "CN(C)(C)=O", "O=n1ccccc1", "O=Cl(=O)(=O)O", "C=N#N"]
    special += ["CS(C)(=O)=NC", "CP(=C)(C)C", "CS(C)=C", "c1cc[nH]c1", "C[Si](C)(C)C", "c1cc[se]c1"]
    spellings = itertools.chain.from_iterable(writings(smiles) for smiles in MOLECULES.values())
    return [*special, *MOLECULES.values(), *(text for _, text in spellings)]


def test_scan_lets_only_molecules_pass_that_no_mode_changes():
    passed = [text for text in _unfiltered_texts() if needs_no_cleanup(text)]
    assert len(passed) > 600
    limits = MoleculeLimits()
    for text in passed:
        for mode in ("cleanup", "parent"):
            result = _standardize.__wrapped__(text, mode, limits)  # without the scan
            assert result == standardize(text, mode) == (text, ())


@pytest.mark.parametrize("text", ["CCO.O", "[Na+]", "[2H]O", "[CH3]", "C->[Pt]", "[CH3:1]C", "[O]"])
def test_scan_stops_what_may_change_or_has_a_note(text):
    assert not needs_no_cleanup(text)


def test_errors_name_the_text_as_given():
    for text in ("C[S+](C)[O", "C[N+](C)(C)(C)C", "C.[*]", "CC(=O)O[Na]." + "C" * 600):
        with pytest.raises(MoleculeError) as caught:
            cleanup_key(text)
        assert caught.value.molecule == text


@pytest.mark.parametrize("workers", [0, 1])
def test_library_is_standardized(workers):
    texts = ["C[S+](C)[O-]", "[2H]O[2H]", "C1", "CC(=O)[O-].[Na+]"] * 2
    rows = list(featurize_library(texts, workers=workers, chunk_size=3, standardization="parent"))
    keys = [row if isinstance(row, MoleculeError) else row[0] for row in rows]
    assert [keys[0], keys[1], keys[3]] == ["CS(C)=O", "O", "CC(=O)O"]
    assert isinstance(keys[2], MoleculeError)
    np.testing.assert_array_equal(rows[1][1].atoms, packed_of("O").atoms)


def test_library_as_written_cannot_be_standardized():
    with pytest.raises(ValueError, match="needs canonical=True"):
        featurize_library(["C"], canonical=False, standardization="cleanup")
