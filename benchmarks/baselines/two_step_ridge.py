"""Two-step kernel ridge regression on a matrix of molecules, in closed form.

A prediction for two molecules is ``h_a R h_b``: ``R`` holds the targets of the train pairs minus
what is expected without chemistry, and zero for all other pairs; ``h`` are the weights of kernel
ridge regression, ``k (K + penalty)^-1``, for each of both molecules. Leaving a known molecule out
has a closed form, too, so that penalties for unknown molecules are selected with train pairs.

Source: Stock et al., Neural Computation 2018 (two-step kernel ridge regression); Stock et al.,
Briefings in Bioinformatics 2020 (leaving out one molecule or both).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from baselines.answers import Array
from baselines.rates import Index

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

_BLOCK = 8192  # pairs whose weights are gathered at once


class RidgeKernel:
    """Kernel matrix of the known molecules of a role, decomposed once for all penalties.

    Args:
        kernel: Similarity of the known molecules, ``[known, known]``.
        unknown: Similarity of unknown molecules to the known ones, ``[unknown, known]``.
    """

    def __init__(self, kernel: Array, unknown: Array) -> None:
        self._values, self._vectors = np.linalg.eigh(kernel)
        self._values = self._values.clip(min=0)  # rounding makes some of them negative
        self._unknown = unknown @ self._vectors

    def smoothing(self, penalty: float) -> Array:
        """Return the weights of known molecules, ``[known, known]``."""
        shrunk = self._values / (self._values + penalty)
        return (self._vectors * shrunk) @ self._vectors.T

    def left_out(self, penalty: float) -> Array:
        """Return the weights of known molecules with each of them left out, ``[known, known]``."""
        weights = self.smoothing(penalty)
        own = np.diag(weights).copy()
        np.fill_diagonal(weights, 0)
        return weights / (1 - own)[:, None].clip(min=1e-9)

    def unknown(self, penalty: float) -> Array:
        """Return the weights of unknown molecules, ``[unknown, known]``."""
        return (self._unknown / (self._values + penalty)) @ self._vectors.T


class PairWeights(NamedTuple):
    """Weights of the molecules of both roles.

    Attributes:
        first: Weights of first molecules, ``[first molecules, known first molecules]``.
        second: Weights of second molecules, ``[second molecules, known second molecules]``.
    """

    first: Array
    second: Array

    def first_step(self, residuals: csr_matrix) -> Array:
        """Predict first molecules with each known second one, ``[first molecules, known]``."""
        return residuals.T.dot(self.first.T).T

    def second_step(self, rows: Array, pairs: Index) -> Array:
        """Predict pairs of rows of both weights, ``[pairs]``.

        Args:
            rows: Result of `first_step`.
            pairs: Rows of the weights of both molecules, ``[pairs, 2]``.
        """
        return _products(rows, self.second, pairs)

    def second_step_left_out(
        self, rows: Array, residuals: csr_matrix, pairs: Index, *, both: bool
    ) -> Array:
        """Like `second_step` in a symmetric matrix, for known molecules that are left out.

        Molecules that are left out as rows are left out as columns, too.

        Args:
            rows: Result of `first_step`, with weights of `RidgeKernel.left_out`.
            residuals: Matrix of the train pairs.
            pairs: Known molecules of the pairs, ``[pairs, 2]``.
            both: Whether the second molecules, too, are left out, and have such weights;
                otherwise they have weights of `RidgeKernel.smoothing`.
        """
        predicted = self.second_step(rows, pairs)
        first, second = pairs.T
        # Without the column of the first molecule.
        predicted -= np.diag(rows)[first] * self.second[second, first]
        if both:
            # Without the row of the second molecule, except for the part that was just subtracted.
            by_row = np.asarray(residuals.multiply(self.second).sum(axis=1)).ravel()
            own = np.asarray(residuals[second, first]).ravel()
            weight = self.first[first, second]
            predicted -= weight * (by_row[second] - own * self.second[second, first])
        return predicted


def residual_matrix(values: Array, pairs: Index, shape: tuple[int, int]) -> csr_matrix:
    """Make the matrix of the train pairs; the values of repeated pairs are averaged.

    Args:
        values: Targets minus what is expected, ``[pairs]``.
        pairs: Known molecules of the train pairs, ``[pairs, 2]``.
        shape: Numbers of known molecules of both roles.
    """
    sums = csr_matrix((values, pairs.T), shape=shape)
    counts = csr_matrix((np.ones(len(values)), pairs.T), shape=shape)
    sums.sum_duplicates()
    counts.sum_duplicates()
    sums.data /= counts.data
    return sums


def _products(rows: Array, weights: Array, pairs: Index) -> Array:
    """Multiply a row of each matrix for each pair, ``[pairs]``."""
    blocks: Sequence[Array] = [
        np.einsum("pk,pk->p", rows[block[:, 0]], weights[block[:, 1]])
        for block in np.split(pairs, range(_BLOCK, len(pairs), _BLOCK))
    ]
    return np.concatenate(blocks)
