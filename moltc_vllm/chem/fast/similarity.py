"""Compiled search for the most similar fingerprint."""

from __future__ import annotations

from typing import Any

import numpy as np

from moltc_vllm.chem.fast.rdkit_pickle import jit

_M1 = np.uint64(0x5555555555555555)
_M2 = np.uint64(0x3333333333333333)
_M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_H = np.uint64(0x0101010101010101)


@jit
def _count_bits(word: Any) -> Any:
    word = word - ((word >> np.uint64(1)) & _M1)
    word = (word & _M2) + ((word >> np.uint64(2)) & _M2)
    word = (word + (word >> np.uint64(4))) & _M4
    return np.int64((word * _H) >> np.uint64(56))


@jit
def nearest(words: Any, counts: Any, query: Any) -> Any:
    """Return the largest Tanimoto similarity of ``query [W]`` to rows of ``words [N, W]``.

    Rows are sorted by their number of bits ``counts [N]``. The similarity is at most the ratio of
    the smaller to the larger number of bits, so the search runs outward from the query's number
    and ends where no row can be more similar.
    """
    bits = 0
    for word in query:
        bits += _count_bits(word)
    up = np.searchsorted(counts, bits)
    down = up - 1
    best = 0.0
    while True:
        upper_bound = 0.0
        if up < len(counts):
            upper_bound = bits / counts[up] if counts[up] else 1.0
        lower_bound = 0.0
        if down >= 0:
            lower_bound = counts[down] / bits if bits else 1.0
        if upper_bound <= best and lower_bound <= best:
            return best
        if upper_bound >= lower_bound:
            row = up
            up += 1
        else:
            row = down
            down -= 1
        common = 0
        for index in range(len(query)):
            common += _count_bits(words[row, index] & query[index])
        union = counts[row] + bits - common
        similarity = common / union if union else 1.0
        if similarity > best:
            best = similarity
