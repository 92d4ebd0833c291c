"""`MolGraph` rejects indices that would read outside the embedding tables."""

import pickle

import numpy as np
import pytest

from moltc_vllm.chem import MAX_ATOMS, MolGraph
from moltc_vllm.chem.atom_detail import DETAIL_CODES

FIELDS = ("atomic_number", "chirality", "bond_index", "bond_type", "bond_direction", "detail")


def arrays(**changes):
    """A chain of three atoms with two bonds."""
    valid = {
        "atomic_number": [5, 5, 7],
        "chirality": [0, 1, 2],
        "bond_index": [[0, 1], [1, 2]],
        "bond_type": [0, 3],
        "bond_direction": [0, 2],
        "detail": [0, 300, DETAIL_CODES - 1],
    }
    return {name: np.array(value) for name, value in (valid | changes).items()}


def test_directed_lists_each_bond_in_both_directions():
    edge_index, edge_attr = MolGraph(**arrays()).directed()
    assert edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert edge_attr.tolist() == [[0, 0], [0, 0], [3, 2], [3, 2]]
    assert edge_index.dtype == edge_attr.dtype == np.int64


def test_arrays_are_copied_converted_and_read_only():
    given = arrays()
    graph = MolGraph(**given)
    for name in FIELDS:
        array = getattr(graph, name)
        assert array.dtype == (np.uint16 if name in ("bond_index", "detail") else np.uint8)
        assert not np.shares_memory(array, given[name])
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_pickle_keeps_values_and_read_only_flags():
    graph = MolGraph(**arrays())
    copy = pickle.loads(pickle.dumps(graph))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(copy, name), getattr(graph, name))
        assert not getattr(copy, name).flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        {"atomic_number": [5, 5, 118]},
        {"atomic_number": [5, 5, -1]},
        {"atomic_number": [5, 5, 256 + 5]},  # would become carbon in a cast to 8 bits
        {"chirality": [0, 0, 3]},
        {"bond_index": [[0, 1], [1, 3]]},
        {"bond_index": [[0, 1], [1, -1]]},
        {"bond_type": [0, 4]},
        {"bond_direction": [0, 3]},
        {"detail": [0, 0, DETAIL_CODES]},
        {"detail": [0, 0]},
        {"chirality": [0, 0]},
        {"bond_index": [[0, 1]]},
        {"bond_index": [[0, 1], [1, 2], [0, 0]]},
        {"bond_direction": [0]},
        {"atomic_number": [], "chirality": []},
        {"atomic_number": [5] * (MAX_ATOMS + 1), "chirality": [0] * (MAX_ATOMS + 1)},
    ],
    ids=str,
)
def test_wrong_shape_or_range_is_rejected(change):
    with pytest.raises(ValueError, match="expected"):
        MolGraph(**arrays(**change))


def test_other_types_than_integers_are_rejected():
    with pytest.raises(TypeError, match="chirality has dtype float64"):
        MolGraph(**arrays(chirality=[0.0, 0.5, 1.0]))
