"""Detail codes: digits, distinguished atoms, and independence of the spelling."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import HybridizationType

from moltc_vllm.chem import canonical_key, featurize_packed, packed_of, parse_smiles
from moltc_vllm.chem.atom_detail import (
    AROMATIC,
    DETAIL_CODES,
    DETAIL_SIZES,
    OTHER,
    SP,
    SP2,
    SP3,
    detail_code,
)
from moltc_vllm.chem.fast.compiled import CompiledReader
from moltc_vllm.chem.fast.self_test import find_difference
from moltc_vllm.chem.featurize_loops import featurize_loops
from tests.molecules import DRUGS

READER = CompiledReader()


def digits(code):
    """Split a detail code into its features, by name."""
    values = {}
    for name, size in reversed(DETAIL_SIZES.items()):
        code, values[name] = divmod(int(code), size)
    assert code == 0
    return values


def feature(smiles, name):
    return [digits(code)[name] for code in packed_of(smiles).detail]


def test_codes_of_all_features_are_distinct_and_in_range():
    grid = itertools.product(range(-2, 3), range(5), (0, 3, 4, 5, 6, 7, 8), range(5), range(3))
    codes = [detail_code(*values) for values in grid]
    assert sorted(codes) == list(range(DETAIL_CODES))
    assert digits(detail_code(-1, 3, 5, SP2, 1)) == {
        "formal_charge": 1,
        "hydrogens": 3,
        "ring_size": 3,
        "hybridization": SP2,
        "radicals": 1,
    }


def test_values_beyond_the_tables_are_clipped():
    assert detail_code(-4, 0, 0, OTHER, 0) == detail_code(-2, 0, 0, OTHER, 0)
    assert detail_code(7, 9, 20, SP3, 6) == detail_code(2, 4, 8, SP3, 2)


@pytest.mark.parametrize(
    ("smiles", "charges"),
    [("CC(=O)[O-]", [2, 2, 2, 1]), ("[Ca+2].[NH4+]", [4, 3]), ("[Fe+3]", [4]), ("[N-3]", [0])],
)
def test_formal_charge(smiles, charges):
    assert feature(smiles, "formal_charge") == charges


@pytest.mark.parametrize(
    ("smiles", "hydrogens"),
    [
        ("C", [4]),
        ("[C]", [0]),
        ("[CH3]", [3]),
        ("OCC", [1, 2, 3]),
        ("c1cc[nH]c1", [1, 1, 1, 1, 1]),
        ("C1=CNC=C1", [1, 1, 1, 1, 1]),
        ("[H][H]", [1, 1]),
        ("[2H]OC", [0, 1, 3]),  # deuterium is a hydrogen of its neighbor, drawn as an atom
        ("[NH4+]", [4]),
        ("[Na+]", [0]),
    ],
)
def test_hydrogens_count_drawn_and_implicit_ones(smiles, hydrogens):
    assert feature(smiles, "hydrogens") == hydrogens


def test_ring_size_is_that_of_the_smallest_ring():
    fused = "C1CC2CCCC2C3CC31"  # six-, five- and three-membered rings
    assert feature(fused, "ring_size") == [4, 4, 3, 3, 3, 3, 3, 1, 1, 1]
    for size, value in ((3, 1), (4, 2), (5, 3), (6, 4), (7, 5), (8, 6), (9, 6), (30, 6)):
        assert feature(f"C1{'C' * (size - 1)}1", "ring_size") == [value] * size
    assert feature("CCO", "ring_size") == [0, 0, 0]


def test_ring_size_with_wide_atom_indices():
    chain = "C" * 290
    assert feature(f"C1CC1{chain}", "ring_size") == [1] * 3 + [0] * 290


@pytest.mark.parametrize(
    ("smiles", "kinds"),
    [
        ("CC=C", [SP3, SP2, SP2]),
        ("CC#N", [SP3, SP, SP]),
        ("C=C=C", [SP2, SP, SP2]),
        ("O=C=O", [SP2, SP, SP2]),
        ("c1ccoc1", [AROMATIC] * 5),
        ("C1=CC=CO1", [AROMATIC] * 5),
        ("CC(N)=O", [SP3, SP2, SP2, SP2]),  # planar amide nitrogen
        ("CCN", [SP3, SP3, SP3]),
        ("C[NH3+]", [SP3, SP3]),
        ("CS(C)=O", [SP3, SP3, SP3, SP2]),
        ("CS(N)(=O)=O", [SP3, SP3, SP3, SP2, SP2]),  # pyramidal sulfonamide nitrogen
        ("C[N+](=O)[O-]", [SP3, SP2, SP2, SP2]),  # equal oxygens
        ("CC([O-])=O", [SP3, SP2, SP2, SP2]),
        ("C[CH2+]", [SP3, SP2]),
        ("C[CH2-]", [SP3, SP3]),
        ("CB(O)O", [SP3, SP2, SP3, SP3]),
        ("F[P-](F)(F)(F)(F)F", [SP3, OTHER] + [SP3] * 5),
        ("[Na+].[Cl-].[H][H]", [OTHER] * 4),
    ],
)
def test_hybridization(smiles, kinds):
    assert feature(smiles, "hybridization") == kinds


def test_hybridization_agrees_with_rdkit_on_drugs():
    rdkit_kinds = {
        HybridizationType.SP: SP,
        HybridizationType.SP2: SP2,
        HybridizationType.SP3: SP3,
    }
    for smiles in DRUGS.values():
        mol = parse_smiles(smiles)
        for atom, code in zip(mol.GetAtoms(), featurize_packed(mol).detail, strict=True):
            kind = digits(code)["hybridization"]
            if atom.GetIsAromatic():
                assert kind == AROMATIC
            elif atom.GetDegree():
                assert kind == rdkit_kinds[atom.GetHybridization()], (smiles, atom.GetIdx())


@pytest.mark.parametrize(
    ("smiles", "radicals"), [("C[CH2]", [0, 1]), ("[O][O]", [1, 1]), ("[C]", [2]), ("CC", [0, 0])]
)
def test_radical_electrons(smiles, radicals):
    assert feature(smiles, "radicals") == radicals


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("C", "[C]"),
        ("C", "[CH3]"),
        ("Oc1ccccc1", "[O-]c1ccccc1"),
        ("CC(=O)O", "CC(=O)[O-]"),
        ("C[NH3+]", "CN"),
        ("[O][O]", "[O-][O-]"),
        ("[Cu+]", "[Cu+2]"),
    ],
)
def test_different_molecules_with_equal_graphs_differ_in_details(first, second):
    a, b = packed_of(canonical_key(first)), packed_of(canonical_key(second))
    assert sorted(map(tuple, a.atoms.tolist())) == sorted(map(tuple, b.atoms.tolist()))
    assert sorted(a.detail.tolist()) != sorted(b.detail.tolist())


SPELLINGS = [
    *DRUGS.values(),
    "C",
    "[O-]c1ccccc1",
    "C[CH]C",
    "c1cc[nH]c1",
    "CS(C)=O",
    "C[N+](=O)[O-]",
    "OC[C@H](N)/C=C/Cl",
]


@pytest.mark.parametrize("smiles", SPELLINGS)
def test_details_do_not_depend_on_spelling(smiles):
    mol = Chem.MolFromSmiles(smiles)
    expected = packed_of(canonical_key(smiles)).detail
    explicit = Chem.MolToSmiles(Chem.AddHs(mol))
    every_hydrogen = Chem.MolToSmiles(mol, allHsExplicit=True)
    kekulized = Chem.Mol(mol)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    mapped = Chem.Mol(mol)
    for atom in mapped.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    spellings = [
        explicit,
        every_hydrogen,
        Chem.MolToSmiles(kekulized, kekuleSmiles=True),
        Chem.MolToSmiles(mapped),
        *Chem.MolToRandomSmilesVect(mol, 3, randomSeed=1),
    ]
    for spelling in spellings:
        np.testing.assert_array_equal(packed_of(canonical_key(spelling)).detail, expected)
    # As written, the order of atoms differs, but not the atoms themselves.
    for spelling in spellings:
        as_written = featurize_packed(parse_smiles(spelling)).detail
        assert sorted(as_written.tolist()) == sorted(expected.tolist())


FRAGMENT_LIST = (
    "C c1ccccc1 C1CC1 N [NH3+] [O-] C(=O)O C#N S(=O)(=O)C [CH2] [nH]1cccc1 P(=O)(O)O c1ccncc1 "
    "C1CCCCCCC1 [N+](=O)[O-] F [Na+] [H] B(O)O C=C=C [Si](C)(C)C [SeH]"
)
FRAGMENTS = st.lists(st.sampled_from(FRAGMENT_LIST.split()), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(FRAGMENTS, st.sampled_from(["", "."]))
def test_compiled_details_agree_with_loops_on_random_molecules(fragments, separator):
    smiles = separator.join(fragments)
    if Chem.MolFromSmiles(smiles) is not None:
        assert find_difference(READER, smiles) is None


def test_loops_read_details_of_molecules_that_the_compiled_reader_does_not_support():
    plain = featurize_loops(Chem.MolFromSmiles("C[CH2-]"))
    mapped = Chem.MolFromSmiles("[CH3:1][CH2-:2]")
    assert READER.featurize(mapped) is None
    np.testing.assert_array_equal(featurize_loops(mapped).detail, plain.detail)
