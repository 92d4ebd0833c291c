"""CPU implementations against the naive ones in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_kernels import BondCsr
from moltc_kernels.aggregate import cpu as aggregate_cpu
from moltc_kernels.aggregate import naive as aggregate_naive
from moltc_kernels.cross_attention import KeyValue
from moltc_kernels.cross_attention import cpu as attention_cpu
from moltc_kernels.cross_attention import naive as attention_naive
from moltc_kernels.gin_stack import cpu as stack_cpu
from moltc_kernels.gin_stack import naive as stack_naive
from moltc_kernels.gin_stack.wl_dedup import unique_states_per_layer
from moltc_kernels.readout import cpu as readout_cpu
from moltc_kernels.readout import naive as readout_naive
from tests.kernels.cases import (
    DETAIL_CODES,
    Molecules,
    double,
    gin_weights,
    molecules,
    offsets_of,
    rms_ratio,
)

# Error of a float32 sum that is rounded once to the dtype: half a unit in the last place.
BOUND = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Error with intermediate roundings of hidden states or softmax weights.
MULTI_ROUNDING_BOUND = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
DTYPES = pytest.mark.parametrize("dtype", list(BOUND), ids=str)
SIZES = st.lists(st.integers(1, 40), max_size=20)


@DTYPES
@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, dim=st.sampled_from([1, 8, 60, 63, 300]), seed=st.integers(0, 99))
def test_aggregate_matches_naive(dtype, sizes, dim, seed):
    batch = molecules(sizes, seed=seed)
    torch.manual_seed(seed)
    h, table = torch.randn(len(batch.atoms), dim).to(dtype), torch.randn(18, dim).to(dtype)
    result = aggregate_cpu.aggregate(h, batch.bonds, table)
    expected = aggregate_naive.aggregate(h.double(), batch.bonds, table.double())
    assert result.dtype == dtype
    assert rms_ratio(result, expected) < BOUND[dtype]


@DTYPES
@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, dim=st.sampled_from([4, 60, 63, 300]), seed=st.integers(0, 99))
def test_readout_matches_naive(dtype, sizes, dim, seed):
    batch = molecules(sizes, seed=seed)
    torch.manual_seed(seed)
    h, (weight, bias) = torch.randn(len(batch.atoms), dim).to(dtype), torch.randn(2, dim).to(dtype)
    result, offsets = readout_cpu.readout(h, batch.offsets, weight, bias, 1e-5)
    expected, same = readout_naive.readout(
        h.double(), batch.offsets, weight.double(), bias.double(), 1e-5
    )
    assert torch.equal(offsets, same)
    assert offsets.dtype == torch.int64
    assert result.dtype == dtype
    assert rms_ratio(result, expected) < BOUND[dtype]


@DTYPES
@settings(max_examples=30, deadline=None)
@given(
    sizes=SIZES,
    shape=st.sampled_from([(8, 2, 16, 60), (8, 12, 64, 300), (3, 1, 5, 7)]),
    shared=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cross_attention_matches_naive(dtype, sizes, shape, shared, seed):
    queries, heads, dim, width = shape
    batch = molecules(sizes, seed=seed)
    torch.manual_seed(seed)
    query = torch.randn(1 if shared else len(sizes), queries, heads, dim).to(dtype)
    query = query.expand(len(sizes), -1, -1, -1)
    tokens = torch.randn(len(batch.atoms), width).to(dtype)
    key_weight, value_weight = (torch.randn(2, heads * dim, width) * width**-0.5).to(dtype)
    key_bias, value_bias = torch.randn(2, heads * dim).to(dtype)
    layers = KeyValue(key_weight, key_bias, value_weight, value_bias)
    result = attention_cpu.cross_attention(query, tokens, batch.offsets, layers)
    expected = attention_naive.cross_attention(
        query.double(), tokens.double(), batch.offsets, KeyValue(*(t.double() for t in layers))
    )
    assert result.shape == query.shape
    assert result.dtype == dtype
    assert rms_ratio(result, expected) < MULTI_ROUNDING_BOUND[dtype]


def codes_of(batch: Molecules) -> torch.Tensor:
    return stack_naive.atom_codes(batch.atoms)


def similar_molecules(sizes: list[int], seed: int, kinds: int) -> Molecules:
    """Create molecules with few kinds of atoms and bonds, so that many atoms are equal."""
    batch = molecules(sizes, seed=seed)
    bonds = batch.bonds._replace(code=batch.bonds.code % kinds)
    return batch._replace(atoms=batch.atoms % kinds, bonds=bonds)


def repeat_molecules(batch: Molecules, count: int) -> Molecules:
    """Concatenate copies of a batch."""
    atoms, bonds = len(batch.atoms), len(batch.bonds.source)
    shift = torch.arange(count).repeat_interleave(bonds) * atoms
    degree = batch.bonds.offsets.diff().repeat(count).tolist()
    csr = BondCsr(
        offsets_of(degree).int(),
        (batch.bonds.source.repeat(count) + shift).int(),
        batch.bonds.code.repeat(count),
    )
    return Molecules(batch.atoms.repeat(count, 1), csr, offsets_of(batch.sizes * count).int())


@DTYPES
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.one_of(SIZES, st.lists(st.integers(1, 40), min_size=20, max_size=40)),
    dim=st.sampled_from([8, 60]),
    seed=st.integers(0, 99),
    has_details=st.booleans(),
)
def test_gin_stack_matches_naive_with_and_without_dedup(dtype, sizes, dim, seed, has_details):
    batch = similar_molecules(sizes, seed, kinds=3)
    weights = gin_weights(dim, 2 * dim, 4, dtype, seed, has_details=has_details)
    result = stack_cpu.gin_stack(batch.atoms, batch.bonds, batch.offsets, weights)
    expected = stack_naive.gin_stack(batch.atoms, batch.bonds, batch.offsets, double(weights))
    assert result.dtype == dtype
    assert rms_ratio(result, expected) < MULTI_ROUNDING_BOUND[dtype]


def test_copies_of_a_molecule_share_all_states():
    single = molecules([30], seed=3)
    repeated = repeat_molecules(single, 50)
    expected = unique_states_per_layer(codes_of(single), single.bonds, 5)
    unique = unique_states_per_layer(codes_of(repeated), repeated.bonds, 5)
    assert [len(x.representative) for x in unique] == [len(x.representative) for x in expected]
    weights = gin_weights(60, 120, 5, torch.float32)
    states = stack_cpu.gin_stack(repeated.atoms, repeated.bonds, repeated.offsets, weights)
    states = states.view(50, 30, 60)
    assert torch.equal(states, states[:1].expand_as(states))


@pytest.mark.parametrize("copies", [1, 20], ids=["all atoms", "equal atoms once"])
def test_details_change_states_only_with_a_detail_table(copies):
    batch = repeat_molecules(molecules([12], seed=5), copies)
    atoms = batch.atoms.clone()
    atoms[3, 2] = (atoms[3, 2] + 1) % DETAIL_CODES
    for has_details in (False, True):
        weights = gin_weights(16, 32, 3, torch.float32, has_details=has_details)
        before, after = (
            stack_cpu.gin_stack(table, batch.bonds, batch.offsets, weights)
            for table in (batch.atoms, atoms)
        )
        assert torch.equal(before[3], after[3]) != has_details
        assert torch.equal(before[12:], after[12:])


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_atoms_share_a_state_exactly_if_surroundings_are_equal(sizes, seed):
    batch = similar_molecules(sizes, seed, kinds=2)
    labels = codes_of(batch).tolist()
    bonds = [
        range(int(begin), int(end))
        for begin, end in zip(batch.bonds.offsets, batch.bonds.offsets[1:], strict=False)
    ]
    source, code = batch.bonds.source.tolist(), batch.bonds.code.tolist()
    for layer in unique_states_per_layer(codes_of(batch), batch.bonds, 4):
        assert len(set(labels)) == len(layer.representative)
        assert len(set(zip(labels, layer.state.tolist(), strict=True))) == len(layer.representative)
        assert [labels[i] for i in layer.representative[layer.state].tolist()] == labels
        labels = [
            (own, tuple(sorted((hash(labels[source[e]]), code[e]) for e in incoming)))
            for own, incoming in zip(labels, bonds, strict=True)
        ]


def test_hash_collision_merges_no_atoms(monkeypatch):
    batch = molecules([40] * 5)
    unique = unique_states_per_layer(codes_of(batch), batch.bonds, 3)
    monkeypatch.setattr(
        "moltc_kernels.gin_stack.wl_dedup._mix", lambda x, factor: torch.zeros_like(x)
    )
    collided = unique_states_per_layer(codes_of(batch), batch.bonds, 3)
    assert len(unique[3].representative) > 1
    assert all(len(layer.representative) == len(batch.atoms) for layer in collided[1:])
    weights = gin_weights(16, 32, 3, torch.float32)
    result = stack_cpu.gin_stack(batch.atoms, batch.bonds, batch.offsets, weights)
    expected = stack_naive.gin_stack(batch.atoms, batch.bonds, batch.offsets, double(weights))
    assert rms_ratio(result, expected) < 1e-6


def test_gin_stack_accepts_batch_without_bonds():
    empty = torch.zeros(0, dtype=torch.int32)
    csr = BondCsr(torch.zeros(151, dtype=torch.int32), empty, empty)
    atoms = torch.randint(0, 3, (150, 3), dtype=torch.int32)
    weights = gin_weights(8, 16, 2, torch.float32)
    offsets = torch.arange(151, dtype=torch.int32)
    result = stack_cpu.gin_stack(atoms, csr, offsets, weights)
    expected = stack_naive.gin_stack(atoms, csr, offsets, double(weights))
    assert rms_ratio(result, expected) < 1e-6
