"""Selection of the compiled reader, and the fallback to Python loops where it does not work."""

import logging
import subprocess
import sys

import numba
import numpy as np
import pytest
from rdkit import Chem

from moltc_vllm.chem import MolGraph, featurize
from moltc_vllm.chem.fast import dispatch, rdkit_pickle
from moltc_vllm.chem.fast.compiled import CompiledReader
from moltc_vllm.chem.fast.self_test import first_difference, same_graph
from moltc_vllm.chem.featurize_loops import featurize_loops


@pytest.fixture(autouse=True)
def reset_selection():
    """Isolate the tests, which break the reader in different ways."""
    dispatch.reset_compiled_reader()
    yield
    dispatch.reset_compiled_reader()


def warnings_of_fallback(caplog):
    """Assert that the loops are used, and return the warnings that were logged."""
    with caplog.at_level(logging.WARNING, "moltc_vllm.chem"):
        assert dispatch.compiled_reader() is None
        assert dispatch.compiled_reader() is None
    assert same_graph(
        featurize(Chem.MolFromSmiles("CO")), featurize_loops(Chem.MolFromSmiles("CO"))
    )
    return [record.getMessage() for record in caplog.records]


def test_other_format_version_falls_back_with_one_warning(monkeypatch, caplog):
    def newer(self, mol):
        data = bytearray(mol.ToBinary())
        data[8] = 17
        return bytes(data)

    monkeypatch.setattr(CompiledReader, "to_binary", newer)
    (message,) = warnings_of_fallback(caplog)
    assert "Python loops" in message
    assert "is not supported" in message


def test_wrong_graph_falls_back_with_one_warning(monkeypatch, caplog):
    original = CompiledReader.featurize

    def wrong(self, mol):
        graph = original(self, mol)
        mirrored = np.array([0, 2, 1])[graph.chirality]
        return MolGraph(
            graph.atomic_number,
            mirrored,
            graph.bond_index,
            graph.bond_type,
            graph.bond_direction,
            graph.detail,
        )

    monkeypatch.setattr(CompiledReader, "featurize", wrong)
    assert "differs" in first_difference(CompiledReader())
    (message,) = warnings_of_fallback(caplog)
    assert "differs" in message


def test_missing_numba_falls_back_with_one_warning():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from moltc_vllm.chem import canonical_key, packed_of\n"
        "print(packed_of(canonical_key('OC')).source.tolist(), packed_of('CN').degree.tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[1, 0] [1, 1]"
    assert run.stderr.count("Python loops") == run.stderr.count("numba") == 1


def test_environment_variable_selects_loops(monkeypatch, caplog):
    monkeypatch.setenv(dispatch.FEATURIZE_ENV, "loops")
    assert warnings_of_fallback(caplog) == []
    dispatch.reset_compiled_reader()
    monkeypatch.setenv(dispatch.FEATURIZE_ENV, "slow")
    with pytest.raises(ValueError, match="expected 'fast' or 'loops'"):
        dispatch.compiled_reader()


def test_jit_compiles_without_cache_folder(monkeypatch):
    original = numba.njit

    def njit(*arguments, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return original(*arguments, **options)

    monkeypatch.setattr(numba, "njit", njit)
    assert rdkit_pickle.jit(lambda x: x + 1)(2) == 3
