"""Batches of molecules."""

import pytest

from moltc_vllm.chem import canonical_key, packed_of
from moltc_vllm.models.batch import split_by_atoms


@pytest.mark.parametrize(
    ("most", "expected"), [(100, [4]), (7, [2, 1, 1]), (3, [1, 1, 1, 1]), (1, [1, 1, 1, 1])]
)
def test_molecules_are_split_by_atoms(most, expected):
    molecules = [packed_of(canonical_key(one)) for one in ("CCO", "CCCC", "c1ccccc1", "CC")]
    batches = split_by_atoms(molecules, most)
    assert [len(batch) for batch in batches] == expected
    assert [one for batch in batches for one in batch] == molecules
    assert split_by_atoms([], most) == []
