"""Partial sanitization gives the graphs, keys and errors of RDKit's default parsing."""

import csv
import gzip
import json
import os
import subprocess
import sys
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from moltc_vllm.chem import (
    DEFAULT_LIMITS,
    MoleculeError,
    canonical_key,
    featurize,
    graph_of,
    molecule,
    packed_of,
    parse_smiles,
)
from moltc_vllm.chem.fast import dispatch
from moltc_vllm.chem.fast.compiled import CompiledReader
from moltc_vllm.chem.fast.partial_sanitize import try_parse_for_graph, try_parse_for_writing
from moltc_vllm.chem.fast.self_test import find_difference, same_graph, same_packed
from moltc_vllm.chem.fast.smiles_scan import scan_smiles
from moltc_vllm.chem.featurize_loops import featurize_loops
from moltc_vllm.chem.parse import clean_smiles, parse_for_graph, parse_for_writing
from tests.paths import data_dir
from tests.test_boundaries import ROOT

READER = CompiledReader()
FILES = (
    "screen_approved_drugs.csv.gz",
    "screen_zinc250k_29k.smi.gz",
    "screen_enamine50k.smi.gz",
    "screen_zinc_natural_products_50k.smi.gz",
)


def staged_molecules(count):
    """About ``count`` molecules of each staged library."""
    for name in FILES:
        with gzip.open(data_dir() / name, "rt", newline="") as lines:
            if ".csv" in name:
                texts = [row["smiles"] for row in csv.DictReader(lines)]
            else:
                texts = [line.split()[0] for line in islice(lines, 2500)]
        yield from texts[:: len(texts) // count]


def test_staged_molecules_agree_with_loops_in_three_spellings():
    for index, smiles in enumerate(staged_molecules(250)):
        mol = Chem.MolFromSmiles(smiles)
        texts = [smiles, Chem.MolToRandomSmilesVect(mol, 1, randomSeed=index)[0]]
        Chem.Kekulize(mol, clearAromaticFlags=True)
        texts.append(Chem.MolToSmiles(mol, kekuleSmiles=True, allHsExplicit=index % 2 == 0))
        for text in texts:
            assert find_difference(READER, text) is None
    assert index > 900


@pytest.mark.slow
def test_all_staged_molecules_agree_with_loops():
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "featurize.py", "--check-all"],
        capture_output=True,
        text=True,
        env={**os.environ, "MOLTC_DATA": str(data_dir())},
    )
    counts = json.loads(run.stdout.splitlines()[-1])
    assert counts["mismatches"] == 0, run.stderr
    assert run.returncode == 0
    assert counts["molecules"] > 100_000


NEEDS_DEFAULT_PARSING = (
    "[H]O[H]",
    "[2H]O[2H]",
    "[H][H]",
    "[H+]",
    "[#1]C",
    "[CH3:1]C",
    "C*",
    "C[NH2]->[Pt]",
    "[Re]$[Re]",
    "C~C",
    "C:C",
    "['Rf']",
    "[Pt@SP1](F)(Cl)(Br)I",
    "[C@TH1](F)(Cl)(Br)I",
    "CC.[13CH4]",
)


@pytest.mark.parametrize("smiles", NEEDS_DEFAULT_PARSING)
def test_unusual_texts_need_default_parsing(smiles):
    assert try_parse_for_graph(smiles) is None
    assert try_parse_for_writing(smiles) is None


@pytest.mark.parametrize(
    "smiles",
    [
        "CC(=O)Oc1ccccc1C(=O)O",
        "C[C@@H](N)C(=O)[O-].[Na+]",
        "F/C=C\\F",
        "C%12CCCCC%12",
        "CN(=O)=O",
        "[Fe+2].[K]Cl",
        "c1c[nH]cc1",
        "C[Zn]C",
    ],
)
def test_organic_texts_are_partially_sanitized(smiles):
    assert try_parse_for_graph(smiles) is not None
    assert try_parse_for_writing(smiles) is not None
    assert find_difference(READER, smiles) is None


@pytest.mark.parametrize("smiles", ["CN(C)(C)[Pt]", "C[N]1(C)CC[Cu]1", "O(C)(C)[Li]", "N[K]"])
def test_bonds_to_metals_are_cleaned_up_as_by_default(smiles):
    def bond_types_or_error(mol):
        try:
            return featurize_loops(mol, smiles).bond_type.tolist()
        except MoleculeError as error:
            return error.reason

    assert bond_types_or_error(try_parse_for_graph(smiles)) == bond_types_or_error(
        Chem.MolFromSmiles(smiles)
    )


@pytest.mark.parametrize(
    "smiles",
    [
        "Cc1cc(C)[nH]/c(=N\\C(=N)NCCc2c[nH]c3ccccc23)n1",
        "N=C(/N=C1\\NC(=CC(=N1)C)C)NCCC1C2C(NC=1)=CC=CC=2",
        "CCNC(=S)N/N=c1/nc(N2CCOCC2)nc(N2CCOCC2)[nH]1",
    ],
)
def test_bond_directions_that_depend_on_hydrogen_position_are_kept(smiles):
    assert set(featurize(try_parse_for_graph(smiles)).bond_direction) > {0}
    assert find_difference(READER, smiles, must_support=True) is None


def outcome(parse, text):
    """Graph of a text, or all attributes of the error."""
    try:
        return featurize(parse(clean_smiles(text, DEFAULT_LIMITS), DEFAULT_LIMITS), text)
    except MoleculeError as error:
        return error.molecule, error.kind, error.reason


def check_outcome(text):
    """Assert that partial sanitization has the outcome of default parsing, and return that."""
    expected = outcome(parse_smiles, text)
    for parse in (parse_for_graph, parse_for_writing):
        got = outcome(parse, text)
        if isinstance(expected, tuple):
            assert got == expected
        else:
            assert same_graph(got, expected)
    return expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("C1CC", "syntax"),
        ("CC(C", "syntax"),
        ("CN(C)(C)C", "valence"),
        ("c1cccc1", "valence"),
        ("Cc", "valence"),
        ("C*", "unsupported"),
        ("C[NH2]->[Pt]", "unsupported"),
        ("C" * 513, "too_many_atoms"),
        ("C" * 2049, "too_long"),
        ("[1234CH4]", "syntax"),
        ("C[NH3+100]", "syntax"),
        ("[Fe" + "+" * 16 + "]", "syntax"),
        ("[Cl" + "-" * 16 + "]", "syntax"),
        (" ", "empty"),
        (None, "type"),
    ],
)
def test_errors_equal_those_of_default_parsing(text, kind):
    assert check_outcome(text)[1] == kind


_TOKENS = (
    "C c N n O o S F Cl B [nH] [C@H] [C@@] [N+] [2H] [H] [U] [Na+] [O-] [CH3:1] [K] [Cu+2] [C] "
    "( ) 1 2 %10 = # $ / \\ . - : ~ * -> [C@@H] [se] C1CC1 c1ccccc1 [CH2] P(=O) N(=O)=O"
)


@pytest.mark.parametrize(
    "number", ["1234", "+100", "-256", "+" * 16, "-" * 16, "+" * 15 + "-" * 16]
)
def test_clean_smiles_rejects_numbers_that_rdkit_wraps_around(number):
    text = f"C[{number}CH4]" if number.isdigit() else f"C[Fe{number}]"
    quoted = "-" * 16 if "+-" in number else number
    with pytest.raises(MoleculeError) as caught:
        clean_smiles(text, DEFAULT_LIMITS)
    assert caught.value.reason == f"no atom has {quoted!r}"


def test_random_texts_have_outcome_of_default_parsing(capfd):
    @settings(max_examples=500, deadline=None)
    @given(st.lists(st.sampled_from(_TOKENS.split()), min_size=1, max_size=20).map("".join))
    def check(text):
        check_outcome(text)

    check()
    assert capfd.readouterr() == ("", "")


def test_keys_and_graphs_equal_those_of_loops(monkeypatch):
    texts = [*staged_molecules(25), "[CH3:1][C@H](Cl)[CH3:2]", "[2H]OC"]

    def compute_all(setting):
        monkeypatch.setenv(dispatch.FEATURIZE_ENV, setting)
        for cached in (molecule._cached_key, molecule._canonicalize, molecule._cached_graph):
            cached.cache_clear()
        dispatch.reset_compiled_reader()
        assert (dispatch.compiled_reader() is None) == (setting == "loops")
        keys = [canonical_key(text) for text in texts]
        return keys, [packed_of(key) for key in keys], [graph_of(key) for key in keys]

    try:
        fast, loops = compute_all("fast"), compute_all("loops")
    finally:
        dispatch.reset_compiled_reader()
    assert fast[0] == loops[0]
    assert all(map(same_packed, fast[1], loops[1]))
    assert all(map(same_graph, fast[2], loops[2]))


def test_scan_smiles_maps_characters_to_kinds():
    assert scan_smiles("C[C@@H](N)C#[13C]") == b"S[S@@0..S.S0[00S."
    assert scan_smiles("\u2013\xe9*") == b"!!!"
