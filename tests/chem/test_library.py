"""`featurize_library`: rows in order, isolated from each other, and no worker left running."""

import functools
import itertools
import multiprocessing
import os

import numpy as np
import pytest

from moltc_vllm.chem import (
    MoleculeError,
    MoleculeLimits,
    canonical_key,
    featurize_library,
    library,
    packed_of,
    parse_smiles,
)
from moltc_vllm.chem.fast import dispatch
from moltc_vllm.chem.fast.self_test import same_packed
from moltc_vllm.chem.featurize import featurize_packed

SMILES = [
    "OCC",
    "C1CC",
    "C[C@H](N)C(=O)O",
    "C*",
    None,
    "O",
    "CN(C)(C)C",
    " N#C\n",
    "[CH3:1]C",
    3.5,
    "",
    "F/C=C/F",
    "[2H]O",
    "C" * 20,
    "C" * 2049,
]


class CrashingText(str):
    """Text that kills the process in which it is unpickled."""

    __slots__ = ()

    def __reduce__(self):
        return os._exit, (3,)


def expected_row(text, canonical):
    try:
        if canonical:
            key = canonical_key(text)
            return key, packed_of(key)
        return text.strip(), featurize_packed(parse_smiles(text), text.strip())
    except MoleculeError as error:
        return error
    except AttributeError:  # A number has no `strip`.
        with pytest.raises(MoleculeError) as caught:
            canonical_key(text)
        return caught.value


def same_row(row, expected):
    if isinstance(expected, MoleculeError):
        assert isinstance(row, MoleculeError)
        return row.args == expected.args
    return row[0] == expected[0] and same_packed(row[1], expected[1])


def no_workers_running():
    return multiprocessing.active_children() == []


@pytest.mark.parametrize("canonical", [True, False])
@pytest.mark.parametrize(("workers", "chunk_size"), [(0, 4), (1, 7), (2, 3), (2, 256)])
def test_rows_equal_single_molecules_in_order(workers, chunk_size, canonical):
    library_rows = featurize_library(
        SMILES, canonical=canonical, workers=workers, chunk_size=chunk_size
    )
    rows = list(library_rows)
    assert len(rows) == len(SMILES)
    for row, text in zip(rows, SMILES, strict=True):
        assert same_row(row, expected_row(text, canonical)), text
    assert no_workers_running()


def test_loops_give_the_same_rows(monkeypatch):
    fast = list(featurize_library(SMILES, canonical=False, workers=0))
    monkeypatch.setenv(dispatch.FEATURIZE_ENV, "loops")
    dispatch.reset_compiled_reader()
    try:
        loops = list(featurize_library(SMILES, canonical=False, workers=0))
    finally:
        dispatch.reset_compiled_reader()
    assert all(same_row(a, b) for a, b in zip(fast, loops, strict=True))


def test_row_arrays_are_read_only():
    for workers in (0, 1):
        for _, packed in featurize_library(["CO"] * 4, workers=workers, chunk_size=2):
            assert not any(array.flags.writeable for array in packed.arrays())


def test_limits_apply_in_workers():
    limits = MoleculeLimits(max_atoms=3)
    rows = list(featurize_library(["CCC", "CCCC"] * 3, limits=limits, workers=1, chunk_size=2))
    assert [row.kind if isinstance(row, MoleculeError) else row[0] for row in rows] == [
        "CCC",
        "too_many_atoms",
    ] * 3


def test_library_is_not_consumed_before_first_row():
    consumed = itertools.count()
    featurize_library(("C" for _ in consumed), workers=2)
    assert next(consumed) == 0
    assert no_workers_running()


@pytest.mark.parametrize("workers", [0, 2])
def test_endless_library_is_consumed_lazily_and_can_be_closed(workers):
    consumed = 0

    def endless():
        nonlocal consumed
        for length in itertools.cycle(range(1, 40)):
            consumed += 1
            yield "C" * length

    rows = featurize_library(endless(), workers=workers, chunk_size=8)
    lengths = [len(packed.degree) for _, packed in itertools.islice(rows, 100)]
    assert lengths == list(itertools.islice(itertools.cycle(range(1, 40)), 100))
    assert consumed <= 100 + 8 * (3 * max(workers, 1) + 1)
    rows.close()
    assert no_workers_running()
    assert next(rows, None) is None


def test_failing_source_stops_workers():
    def failing():
        yield from ["CO"] * 40
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(featurize_library(failing(), workers=1, chunk_size=4))
    assert no_workers_running()


def test_crashing_row_affects_no_other_row():
    texts = ["CO", "CCO", "C1", "CCC", CrashingText("CN"), "CCN", "CCCC", "C=C", "C#C", "CF"] * 2
    rows = list(featurize_library(texts, workers=2, chunk_size=3))
    assert [row.kind if isinstance(row, MoleculeError) else row[0] for row in rows] == [
        *("CO", "CCO", "syntax", "CCC", "crash", "CCN", "CCCC", "C=C", "C#C", "CF"),
    ] * 2
    assert str(rows[4]) == "molecule 'CN': crash: the process that read it crashed"
    assert no_workers_running()


def test_failure_to_start_workers_is_not_a_row_error(monkeypatch):
    monkeypatch.setattr(library, "_initialize_worker", functools.partial(os._exit, 3))
    with pytest.raises(RuntimeError, match="cannot be started"):
        list(featurize_library(["C"] * 9, workers=1, chunk_size=2))
    assert no_workers_running()


@pytest.mark.parametrize("arguments", [{"workers": -1}, {"chunk_size": 0}])
def test_invalid_arguments_are_rejected_at_the_call(arguments):
    with pytest.raises(ValueError, match="expected 0 or more and 1 or more"):
        featurize_library(["C"], **arguments)


def test_default_is_one_worker_per_cpu(monkeypatch):
    started = []
    original = library._start_executor
    monkeypatch.setattr(library, "_start_executor", lambda n: started.append(n) or original(1))
    rows = list(featurize_library(["CO"] * 6, chunk_size=2))
    assert started == [len(os.sched_getaffinity(0))]
    assert {key for key, _ in rows} == {"CO"}
    assert np.concatenate([packed.degree for _, packed in rows]).tolist() == [1] * 12
