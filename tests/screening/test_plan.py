"""Every pair once, in any piece, in an order that keeps molecules cached."""

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.screening.plan import Limited, Product, Shuffled, Triangle, Zip

SIZES = st.integers(0, 17)
BLOCKS = st.integers(1, 20)


def pairs(indices):
    return [(one.first, one.second) for one in indices]


def check_pieces(plan, cuts):
    """Any piece is that of the whole."""
    whole = list(plan.slice(0, len(plan)))
    assert len(whole) == len(plan)
    for start, stop in cuts:
        assert list(plan.slice(start, stop)) == whole[start:stop]


CUTS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 320)), max_size=5)


@given(SIZES, SIZES, BLOCKS, CUTS)
def test_products(first, second, block, cuts):
    plan = Product(first, second, block)
    found = list(plan.slice(0, len(plan)))
    expected = list(product(range(first), range(second)))
    assert sorted(pairs(found)) == expected
    # Rows count through the product as it is written.
    assert [expected[one.row - 1] for one in found] == pairs(found)
    check_pieces(plan, cuts)


@given(SIZES, BLOCKS, CUTS)
def test_triangles(size, block, cuts):
    plan = Triangle(size, block)
    found = list(plan.slice(0, len(plan)))
    expected = list(combinations(range(size), 2))
    assert sorted(pairs(found)) == expected
    assert [expected[one.row - 1] for one in found] == pairs(found)
    check_pieces(plan, cuts)


@given(SIZES, CUTS)
def test_rows(size, cuts):
    plan = Zip(size)
    assert pairs(plan.slice(0, 99)) == [(row, row) for row in range(size)]
    assert [one.row for one in plan.slice(0, 99)] == list(range(1, size + 1))
    check_pieces(plan, cuts)


@pytest.mark.parametrize("plan", [Product(40, 90, 16), Triangle(90, 16)])
def test_few_molecules_at_a_time(plan):
    """A block's second molecules come once; a first molecule changes once per block."""
    found = pairs(plan.slice(0, len(plan)))
    blocks = [second // 16 for _, second in found]
    assert blocks == sorted(blocks)
    changes = sum(one != other for (one, _), (other, _) in pairwise(found))
    assert changes <= 6 * 90


def test_a_piece_far_inside_is_found_at_once():
    plan = Product(1_000_000, 1_000_000, 4096)
    place = 987_654_321_012
    (one,) = plan.slice(place, place + 1)
    assert 0 <= one.first < 1_000_000
    triangle = Triangle(1_000_000, 4096)
    (last,) = triangle.slice(len(triangle) - 1, len(triangle))
    assert (last.first, last.second, last.row) == (999_998, 999_999, len(triangle))


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 3), CUTS)
def test_a_random_order_is_one(size, seed, cuts):
    plan = Shuffled(Zip(size), seed)
    check_pieces(plan, cuts)
    assert sorted(one.first for one in plan.slice(0, size)) == list(range(size))


def test_the_first_of_a_random_order_are_a_sample():
    """Over many seeds each place is among the first tenth about as often."""
    count = [0] * 50
    for seed in range(400):
        for one in Limited(Shuffled(Zip(50), seed), 5).slice(0, 5):
            count[one.first] += 1
    assert sum(count) == 2000
    assert min(count) > 15  # 40 are expected, with a standard deviation of 6
    assert max(count) < 70
    orders = {tuple(one.row for one in Shuffled(Zip(50), seed).slice(0, 50)) for seed in range(9)}
    assert len(orders) == 9
