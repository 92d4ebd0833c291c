"""Parsing of SMILES and molblocks, the reasons in errors, and the state of RDKit's log."""

import json
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from moltc_vllm.chem import (
    DEFAULT_LIMITS,
    MoleculeError,
    MoleculeLimits,
    canonical_key,
    graph_of,
    parse_molblock,
    parse_smiles,
)
from tests.paths import reference_dir


def error_of(text, limits=DEFAULT_LIMITS, parse=parse_smiles):
    with pytest.raises(MoleculeError) as caught:
        parse(text, limits)
    return caught.value


def test_invalid_reference_molecules_are_rejected():
    lines = (reference_dir() / "bad_smiles.jsonl").read_text().splitlines()
    assert len(lines) == 9
    for line in lines:
        error_of(json.loads(line)["smiles"], parse=canonical_key)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("", "empty", "no text"),
        (" \n", "empty", "no text"),
        (None, "type", "not NoneType"),
        (float("nan"), "type", "not float"),
        (["CCO"], "type", "not list"),
        ("not_a_smiles", "syntax", "syntax error around position 3"),
        ("C1CC", "syntax", "unclosed ring"),
        ("CC(C", "syntax", "extra open parentheses around position 3"),
        ("CCO ethanol", "syntax", "character ' ' at position 4"),
        ("CCO |$a;b;c$|", "syntax", "character ' '"),
        ("C\x00", "syntax", r"character '\x00' at position 2"),
        ("CCO\u2013C", "syntax", r"character '\u2013' at position 4"),
        ("\ud800", "syntax", r"\ud800"),
        ("CN(C)(C)C", "valence", "Explicit valence for atom # 1 N, 4, is greater than permitted"),
        ("c1cccc1", "valence", "Can't kekulize mol.  Unkekulized atoms: 0 1 2 3 4"),
        ("Cc", "valence", "non-ring atom 1 marked aromatic"),
        ("C" * 2049, "too_long", "2049 characters, at most 2048"),
        ("C" * 513, "too_many_atoms", "513 atoms, at most 512"),
    ],
)
def test_error_has_kind_and_reason(text, kind, reason):
    error = error_of(text)
    assert error.kind == kind
    assert reason in error.reason
    assert "\n" not in error.reason


def test_limits_are_inclusive():
    assert parse_smiles("C" * 7, MoleculeLimits(7, 7)).GetNumAtoms() == 7
    assert error_of("C" * 8, MoleculeLimits(7, 8)).kind == "too_many_atoms"
    assert error_of("C" * 8, MoleculeLimits(8, 7)).kind == "too_long"


@pytest.mark.parametrize("limits", [(0, 10), (40_000, 10), (10, 0)])
def test_invalid_limits_are_rejected(limits):
    with pytest.raises(ValueError, match="expected"):
        MoleculeLimits(*limits)


def test_error_survives_pickling():
    error = error_of("C1CC")
    assert str(error) == "molecule 'C1CC': syntax: unclosed ring"
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.molecule, copy.kind) == (str(error), "C1CC", "syntax")


def test_error_message_shortens_long_text():
    error = error_of("C" * 5000)
    assert error.molecule == "C" * 5000
    assert "C" * 79 + "…'" in str(error)
    assert len(str(error)) < 160


def test_overlong_text_is_rejected_without_parsing():
    start = time.perf_counter()
    assert error_of("C" * 10_000, parse=canonical_key).kind == "too_long"
    assert time.perf_counter() - start < 0.05


@pytest.mark.parametrize("write", [Chem.MolToMolBlock, Chem.MolToV3KMolBlock])
def test_parse_molblock_ignores_sdf_data(write):
    block = write(Chem.MolFromSmiles("C[C@H](N)C(=O)O")) + "> <name>\nalanine\n\n$$$$\n"
    assert Chem.MolToSmiles(parse_molblock(block)) == "C[C@H](N)C(=O)O"


def test_parse_molblock_rejects_invalid_blocks():
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
    assert error_of("CCO", parse=parse_molblock).kind == "syntax"
    assert error_of(block + block, parse=parse_molblock).kind == "syntax"
    assert "'Cx'" in error_of(block.replace("C ", "Cx", 1), parse=parse_molblock).reason
    assert error_of(block.replace("O ", "Q "), parse=parse_molblock).kind == "unsupported"
    assert error_of("", parse=parse_molblock).kind == "empty"
    assert error_of(block + " " * 300_000, parse=parse_molblock).kind == "too_long"
    assert error_of(block, MoleculeLimits(max_atoms=2), parse_molblock).kind == "too_many_atoms"


_TOKENS = (
    "C c N n O o S F Cl B [nH] [C@H] [C@@] [2H] [H] [U] [Na+] [O-] [CH3:1] [Pt@SP1] "
    "( ) 1 2 %10 = # $ / \\ . - : ~ * -> <-"
)
_SMILES_LIKE = st.lists(st.sampled_from(_TOKENS.split()), max_size=30).map("".join)


def test_random_text_has_key_or_error_and_prints_nothing(capfd):
    @settings(max_examples=400, deadline=None)
    @given(st.one_of(st.text(max_size=40), _SMILES_LIKE))
    def check(text):
        try:
            key = canonical_key(text)
        except MoleculeError:
            return
        assert graph_of(key).num_atoms >= 1
        assert canonical_key(key) == key

    check()
    assert capfd.readouterr() == ("", "")


def test_random_molblock_has_molecule_or_error_and_prints_nothing(capfd):
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("C[C@H](N)C(=O)O"))

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(block) - 1), st.sampled_from("019 C*QA\nM"))
    def check(position, character):
        with suppress(MoleculeError):
            parse_molblock(block[:position] + character + block[position + 1 :])

    check()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("disabled", [(), ("rdApp.warning",), ("rdApp.error",)])
def test_rdkit_log_status_is_restored(disabled):
    for name in disabled:
        rdBase.DisableLog(name)
    try:
        before = rdBase.LogStatus()
        error_of("C1CC")
        parse_smiles("[H][H]")
        assert rdBase.LogStatus() == before
    finally:
        for name in disabled:
            rdBase.EnableLog(name)


@pytest.fixture
def eager_threads():
    """Switch threads as often as Python can, so that several are inside a call at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_threads")
def test_threads_get_their_own_errors_and_print_nothing(capfd):
    texts = [f"C1CC{'C' * n}" for n in range(40)] + [f"N(C)(C)(C){'C' * n}" for n in range(1, 40)]
    texts += ["[H][H]", "not_a_smiles"] * 20

    def outcome(text):
        try:
            return Chem.MolToSmiles(parse_smiles(text))
        except MoleculeError as error:
            return error.molecule, error.kind, error.reason

    alone = [outcome(text) for text in texts]
    before = rdBase.LogStatus()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, texts * 5)) == alone * 5
    assert rdBase.LogStatus() == before
    assert capfd.readouterr() == ("", "")
