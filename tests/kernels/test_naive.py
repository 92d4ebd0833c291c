"""Naive operations against Python loops, in float64."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_kernels import BondCsr, ShapeError
from moltc_kernels.aggregate import aggregate
from moltc_kernels.cross_attention import KeyValue, cross_attention, naive
from moltc_kernels.cross_attention.grouped import grouped_cross_attention
from moltc_kernels.gin_stack import naive as gin_naive
from moltc_kernels.readout import readout
from tests.kernels.cases import DETAIL_CODES, double, gin_weights, molecules


def random_bonds(atoms: int, bonds: int, seed: int) -> tuple[BondCsr, list[tuple[int, int, int]]]:
    generator = torch.Generator().manual_seed(seed)
    edges = [
        (
            int(torch.randint(atoms, (), generator=generator)),
            int(torch.randint(atoms, (), generator=generator)),
            int(torch.randint(18, (), generator=generator)),
        )
        for _ in range(bonds)
    ]
    edges.sort(key=lambda edge: edge[1])
    degree = torch.bincount(
        torch.tensor([target for _, target, _ in edges], dtype=torch.long), minlength=atoms
    )
    offsets = torch.cat([torch.zeros(1, dtype=torch.int32), degree.cumsum(0).int()])
    source = torch.tensor([source for source, _, _ in edges], dtype=torch.int32)
    code = torch.tensor([code for _, _, code in edges], dtype=torch.int32)
    return BondCsr(offsets, source, code), edges


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 90), st.sampled_from([1, 7, 60, 63]), st.integers(0, 99))
def test_aggregate_is_the_sum_of_neighbors_bonds_and_self_loop(atoms, bonds, dim, seed):
    csr, edges = random_bonds(atoms, bonds, seed)
    torch.manual_seed(seed)
    h = torch.randn(atoms, dim, dtype=torch.float64)
    table = torch.randn(18, dim, dtype=torch.float64)
    expected = h + table[0]
    for source, target, code in edges:
        expected[target] += h[source] + table[code]
    torch.testing.assert_close(aggregate(h, csr, table), expected)


def test_aggregate_accumulates_half_precision_in_float32():
    csr, _ = random_bonds(30, 200, 0)
    h = torch.randn(30, 63)
    table = torch.randn(18, 63)
    result = aggregate(h.bfloat16(), csr, table.bfloat16())
    exact = aggregate(h.bfloat16().double(), csr, table.bfloat16().double())
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, exact.float().bfloat16())


def test_aggregate_is_differentiable():
    csr, _ = random_bonds(9, 30, 1)
    h = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    table = torch.randn(18, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: aggregate(a, csr, b), (h, table))


def test_gin_stack_adds_detail_embeddings_to_atom_embeddings():
    batch = molecules([7, 4])
    weights = double(gin_weights(6, 12, 2, torch.float32, has_details=True))
    # A table of all combinations of the three columns must give the same states.
    table = (weights.atom_table[:, None] + weights.detail_table).flatten(0, 1)
    combined = dataclasses.replace(weights, atom_table=table, detail_table=None)
    kind, chirality, detail = batch.atoms.unbind(1)
    row = (kind * 3 + chirality) * DETAIL_CODES + detail
    atoms = torch.stack([row // 3, row % 3, 0 * row], 1)
    torch.testing.assert_close(
        gin_naive.gin_stack(*batch, weights),
        gin_naive.gin_stack(*batch._replace(atoms=atoms), combined),
    )
    with pytest.raises(ShapeError, match=r"expected \[11, 3\]"):
        gin_naive.gin_stack(*batch._replace(atoms=atoms[:, :2]), weights)


def test_wrong_shapes_raise_shape_error():
    csr, _ = random_bonds(4, 6, 0)
    with pytest.raises(ShapeError, match=r"bond_table has shape \[18, 3\], expected \[codes, 5\]"):
        aggregate(torch.zeros(4, 5), csr, torch.zeros(18, 3))
    with pytest.raises(ShapeError, match="h has shape"):
        aggregate(torch.zeros(3, 5), csr, torch.zeros(18, 5))
    query, tokens = torch.zeros(2, 3, 4, 8), torch.zeros(5, 7)
    weight, bias = torch.zeros(32, 7), torch.zeros(32)
    with pytest.raises(ShapeError, match="offsets"):
        cross_attention(query, tokens, torch.tensor([0, 5]), KeyValue(weight, bias, weight, bias))
    bad = KeyValue(weight, bias, torch.zeros(32, 6), bias)
    with pytest.raises(ShapeError, match="value_weight"):
        cross_attention(query, tokens, torch.tensor([0, 2, 5]), bad)
    with pytest.raises(ShapeError, match=r"bias has shape \[4\]"):
        readout(torch.zeros(3, 5), torch.tensor([0, 3]), torch.ones(5), torch.zeros(4), 1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 99))
def test_cross_attention_equals_one_molecule_at_a_time(sizes, seed):
    torch.manual_seed(seed)
    heads, dim, queries, width = 3, 5, 8, 6
    offsets = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    query = torch.randn(len(sizes), queries, heads, dim, dtype=torch.float64)
    tokens = torch.randn(sum(sizes), width, dtype=torch.float64)
    weight = torch.randn(2, heads * dim, width, dtype=torch.float64)
    bias = torch.randn(2, heads * dim, dtype=torch.float64)
    layers = KeyValue(weight[0], bias[0], weight[1], bias[1])
    result = cross_attention(query, tokens, offsets, layers)
    for b in range(len(sizes)):
        own = tokens[offsets[b] : offsets[b + 1]]
        for head in range(heads):
            of_head = slice(head * dim, (head + 1) * dim)
            key = own @ weight[0, of_head].T + bias[0, of_head]
            value = own @ weight[1, of_head].T + bias[1, of_head]
            scores = query[b, :, head] @ key.T / math.sqrt(dim)
            torch.testing.assert_close(result[b, :, head], scores.softmax(-1) @ value)


@pytest.mark.parametrize("sizes", [[40, 3, 17, 16, 130, 1, 33, 32], [5, 9, 16], [65]])
def test_grouped_cross_attention_has_same_values_and_gradients(sizes):
    torch.manual_seed(0)
    heads, dim, width = 2, 4, 6
    offsets = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])

    def leaf(*shape):
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    query, tokens = leaf(len(sizes), 3, heads, dim), leaf(sum(sizes), width)
    layers = KeyValue(leaf(8, width), leaf(8), leaf(8, width), leaf(8))
    inputs = [query, tokens, *layers]
    grouped, plain = (
        attend(query, tokens, offsets, layers)
        for attend in (grouped_cross_attention, naive.cross_attention)
    )
    torch.testing.assert_close(grouped, plain)
    weight = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad(grouped, inputs, weight), torch.autograd.grad(plain, inputs, weight)
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 99))
def test_readout_inserts_means_and_normalizes(sizes, seed):
    torch.manual_seed(seed)
    dim = 7
    h = torch.randn(sum(sizes), dim, dtype=torch.float64)
    weight, bias = torch.randn(2, dim, dtype=torch.float64)
    offsets = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()], dtype=torch.int32)
    tokens, token_offsets = readout(h, offsets, weight, bias, 1e-5)
    assert token_offsets.tolist() == [int(o) + b for b, o in enumerate(offsets)]
    for b, size in enumerate(sizes):
        atoms = h[offsets[b] : offsets[b] + size]
        rows = torch.cat([atoms.mean(0, keepdim=True), atoms])
        normalized = (rows - rows.mean(1, keepdim=True)) / (
            rows.var(1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        own = tokens[token_offsets[b] : token_offsets[b + 1]]
        torch.testing.assert_close(own, normalized * weight + bias)
