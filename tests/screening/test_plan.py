"""Plans yield every pair once, for any slice, in an order that keeps molecules cached."""

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.screening.plan import BothDirections, Limited, Product, Shuffled, Triangle, Zip

SIZES = st.integers(0, 17)
BLOCKS = st.integers(1, 20)


def pairs(indices):
    return [(index.first, index.second) for index in indices]


def check_slices(plan, cuts):
    """Check that any slice is that of the whole plan."""
    whole = list(plan.slice(0, len(plan)))
    assert len(whole) == len(plan)
    for start, stop in cuts:
        assert list(plan.slice(start, stop)) == whole[start:stop]


CUTS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 320)), max_size=5)


@given(SIZES, SIZES, BLOCKS, CUTS)
def test_product_yields_every_pair_once(first, second, block, cuts):
    plan = Product(first, second, block)
    indices = list(plan.slice(0, len(plan)))
    expected = list(product(range(first), range(second)))
    assert sorted(pairs(indices)) == expected
    # Rows number the product with the second molecule changing fastest.
    assert [expected[index.row - 1] for index in indices] == pairs(indices)
    check_slices(plan, cuts)


@given(SIZES, BLOCKS, CUTS)
def test_triangle_yields_every_pair_once(size, block, cuts):
    plan = Triangle(size, block)
    indices = list(plan.slice(0, len(plan)))
    expected = list(combinations(range(size), 2))
    assert sorted(pairs(indices)) == expected
    assert [expected[index.row - 1] for index in indices] == pairs(indices)
    check_slices(plan, cuts)


@given(SIZES, BLOCKS, CUTS)
def test_both_directions_follow_each_other(size, block, cuts):
    triangle = Triangle(size, block)
    plan = BothDirections(triangle)
    indices = list(plan.slice(0, len(plan)))
    assert pairs(indices[1::2]) == [pair[::-1] for pair in pairs(indices[::2])]
    assert pairs(indices[::2]) == pairs(triangle.slice(0, len(triangle)))
    assert sorted(pairs(indices)) == [
        pair for pair in product(range(size), repeat=2) if pair[0] != pair[1]
    ]
    assert sorted(index.row for index in indices) == list(range(1, len(plan) + 1))
    check_slices(plan, cuts)


@given(SIZES, CUTS)
def test_zip_pairs_equal_rows(size, cuts):
    plan = Zip(size)
    assert pairs(plan.slice(0, 99)) == [(row, row) for row in range(size)]
    assert [index.row for index in plan.slice(0, 99)] == list(range(1, size + 1))
    check_slices(plan, cuts)


@pytest.mark.parametrize("plan", [Product(40, 90, 16), Triangle(90, 16)])
def test_plan_processes_blocks_of_second_molecules(plan):
    """Each block of second molecules comes once, and first molecules change slowest in it."""
    found = pairs(plan.slice(0, len(plan)))
    blocks = [second // 16 for _, second in found]
    assert blocks == sorted(blocks)
    changes = sum(first != next_first for (first, _), (next_first, _) in pairwise(found))
    assert changes <= 6 * 90


def test_slice_of_huge_plan_is_immediate():
    plan = Product(1_000_000, 1_000_000, 4096)
    position = 987_654_321_012
    (index,) = plan.slice(position, position + 1)
    assert 0 <= index.first < 1_000_000
    triangle = Triangle(1_000_000, 4096)
    (last,) = triangle.slice(len(triangle) - 1, len(triangle))
    assert (last.first, last.second, last.row) == (999_998, 999_999, len(triangle))


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 3), CUTS)
def test_shuffled_is_a_permutation(size, seed, cuts):
    plan = Shuffled(Zip(size), seed)
    check_slices(plan, cuts)
    assert sorted(index.first for index in plan.slice(0, size)) == list(range(size))


def test_shuffled_begins_with_uniform_sample():
    """Over many seeds each row is among the first tenth about equally often."""
    count = [0] * 50
    for seed in range(400):
        for index in Limited(Shuffled(Zip(50), seed), 5).slice(0, 5):
            count[index.first] += 1
    assert sum(count) == 2000
    assert min(count) > 15  # 40 are expected, with a standard deviation of 6
    assert max(count) < 70
    orders = {
        tuple(index.row for index in Shuffled(Zip(50), seed).slice(0, 50)) for seed in range(9)
    }
    assert len(orders) == 9
