"""Libraries: every row answered in order, whatever the others are, and nothing left running."""

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


class Deadly(str):
    """Text that ends the process in which it is unpickled."""

    __slots__ = ()

    def __reduce__(self):
        return os._exit, (3,)


def expected(text, canonical):
    try:
        if canonical:
            key = canonical_key(text)
            return key, packed_of(key)
        return text.strip(), featurize_packed(parse_smiles(text), text.strip())
    except MoleculeError as error:
        return error
    except AttributeError:  # a number has no strip
        with pytest.raises(MoleculeError) as caught:
            canonical_key(text)
        return caught.value


def same_row(got, want):
    if isinstance(want, MoleculeError):
        assert isinstance(got, MoleculeError)
        return got.args == want.args
    return got[0] == want[0] and same_packed(got[1], want[1])


def no_process_is_left():
    return multiprocessing.active_children() == []


@pytest.mark.parametrize("canonical", [True, False])
@pytest.mark.parametrize(("workers", "block"), [(0, 4), (1, 7), (2, 3), (2, 256)])
def test_rows_are_as_one_by_one_and_in_order(workers, block, canonical):
    rows = list(featurize_library(SMILES, canonical=canonical, workers=workers, block=block))
    assert len(rows) == len(SMILES)
    for row, text in zip(rows, SMILES, strict=True):
        assert same_row(row, expected(text, canonical)), text
    assert no_process_is_left()


def test_plain_loops_give_the_same_rows(monkeypatch):
    fast = list(featurize_library(SMILES, canonical=False, workers=0))
    monkeypatch.setenv(dispatch.VARIABLE, "loops")
    dispatch.forget()
    try:
        loops = list(featurize_library(SMILES, canonical=False, workers=0))
    finally:
        dispatch.forget()
    assert all(same_row(a, b) for a, b in zip(fast, loops, strict=True))


def test_arrays_are_read_only():
    for workers in (0, 1):
        for _, packed in featurize_library(["CO"] * 4, workers=workers, block=2):
            assert not any(array.flags.writeable for array in packed)


def test_limits_hold_in_the_workers():
    limits = MoleculeLimits(max_atoms=3)
    rows = list(featurize_library(["CCC", "CCCC"] * 3, limits=limits, workers=1, block=2))
    assert [row.kind if isinstance(row, MoleculeError) else row[0] for row in rows] == [
        "CCC",
        "too_many_atoms",
    ] * 3


def test_nothing_is_drawn_or_started_before_the_first_row():
    drawn = itertools.count()
    featurize_library(("C" for _ in drawn), workers=2)
    assert next(drawn) == 0
    assert no_process_is_left()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_endless_library_is_drawn_lazily_and_can_be_left(workers):
    drawn = 0

    def endless():
        nonlocal drawn
        for length in itertools.cycle(range(1, 40)):
            drawn += 1
            yield "C" * length

    rows = featurize_library(endless(), workers=workers, block=8)
    lengths = [len(packed.degree) for _, packed in itertools.islice(rows, 100)]
    assert lengths == list(itertools.islice(itertools.cycle(range(1, 40)), 100))
    assert drawn <= 100 + 8 * (3 * max(workers, 1) + 1)
    rows.close()
    assert no_process_is_left()
    assert next(rows, None) is None


def test_a_source_that_fails_ends_the_workers_too():
    def failing():
        yield from ["CO"] * 40
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(featurize_library(failing(), workers=1, block=4))
    assert no_process_is_left()


def test_a_row_that_ends_its_process_costs_no_other_row():
    texts = ["CO", "CCO", "C1", "CCC", Deadly("CN"), "CCN", "CCCC", "C=C", "C#C", "CF"] * 2
    rows = list(featurize_library(texts, workers=2, block=3))
    assert [row.kind if isinstance(row, MoleculeError) else row[0] for row in rows] == [
        *("CO", "CCO", "syntax", "CCC", "crash", "CCN", "CCCC", "C=C", "C#C", "CF"),
    ] * 2
    assert str(rows[4]) == "molecule 'CN': crash: reading it ended the process"
    assert no_process_is_left()


def test_workers_that_cannot_start_are_not_blamed_on_a_row(monkeypatch):
    monkeypatch.setattr(library, "_prepare", functools.partial(os._exit, 3))
    with pytest.raises(RuntimeError, match="cannot be started"):
        list(featurize_library(["C"] * 9, workers=1, block=2))
    assert no_process_is_left()


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"block": 0}])
def test_impossible_arguments_are_refused_at_the_call(wrong):
    with pytest.raises(ValueError, match="expected 0 or more and 1 or more"):
        featurize_library(["C"], **wrong)


def test_by_default_every_cpu_has_a_worker(monkeypatch):
    started = []
    original = library._start
    monkeypatch.setattr(library, "_start", lambda n: started.append(n) or original(1))
    rows = list(featurize_library(["CO"] * 6, block=2))
    assert started == [len(os.sched_getaffinity(0))]
    assert {key for key, _ in rows} == {"CO"}
    assert np.concatenate([packed.degree for _, packed in rows]).tolist() == [1] * 12
