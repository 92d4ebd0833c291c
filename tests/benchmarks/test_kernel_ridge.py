"""Two-step kernel ridge regression against its definition, and both models of pairs."""

import numpy as np
import pytest
from baselines import kernel_ridge
from baselines.tanimoto import tanimoto_kernel
from baselines.two_step_ridge import PairWeights, RidgeKernel, residual_matrix
from sklearn.kernel_ridge import KernelRidge

from tests.benchmarks.test_rates import make_problem

SIZE = 7


@pytest.fixture
def kernel():
    points = np.random.default_rng(0).normal(size=(SIZE + 2, 3))
    return points @ points.T + np.eye(SIZE + 2)


def weights_by_definition(kernel, rows, columns, penalty):
    """Weights of kernel ridge regression of some molecules, by others."""
    gram = kernel[np.ix_(columns, columns)] + penalty * np.eye(len(columns))
    return kernel[np.ix_(rows, columns)] @ np.linalg.inv(gram)


def test_tanimoto_kernel_compares_counts():
    kernel = tanimoto_kernel(["CCO", "CCCO", "O"], ["CCO", "O"])
    assert kernel[0, 0] == kernel[2, 1] == 1
    assert 0 < kernel[1, 0] < 1
    assert kernel[0, 1] == kernel[2, 0]


def test_weights_are_those_of_ridge_regression(kernel):
    known, unknown = list(range(SIZE)), [SIZE, SIZE + 1]
    ridge = RidgeKernel(kernel[:SIZE, :SIZE], kernel[SIZE:, :SIZE])
    smoothing = weights_by_definition(kernel, known, known, 0.5)
    assert ridge.smoothing(0.5) == pytest.approx(smoothing)
    assert ridge.unknown(0.5) == pytest.approx(weights_by_definition(kernel, unknown, known, 0.5))
    left_out = ridge.left_out(0.5)
    for index in known:
        others = [other for other in known if other != index]
        by_definition = weights_by_definition(kernel, [index], others, 0.5)[0]
        assert left_out[index, others] == pytest.approx(by_definition)
        assert left_out[index, index] == 0


@pytest.fixture
def symmetric():
    """Symmetric residuals of some pairs of known molecules."""
    generator = np.random.default_rng(1)
    pairs = np.array([(i, j) for i in range(SIZE) for j in range(i) if (i + j) % 3])
    values = generator.normal(size=len(pairs))
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return pairs, residual_matrix(np.concatenate([values, values]), both, (SIZE, SIZE))


def test_left_out_molecule_is_unknown_in_symmetric_matrix(kernel, symmetric):
    pairs, residuals = symmetric
    ridge = RidgeKernel(kernel[:SIZE, :SIZE], kernel[SIZE:, :SIZE])
    weights = PairWeights(ridge.left_out(0.5), ridge.smoothing(2.0))
    rows = weights.first_step(residuals)
    predicted = weights.second_step_left_out(rows, residuals, pairs, both=False)
    for (first, second), value in zip(pairs, predicted, strict=True):
        without = residuals.toarray()
        without[first] = without[:, first] = 0
        expected = weights.first[first] @ without @ weights.second[second]
        assert value == pytest.approx(expected)


def test_two_left_out_molecules_are_unknown_in_symmetric_matrix(kernel, symmetric):
    pairs, residuals = symmetric
    ridge = RidgeKernel(kernel[:SIZE, :SIZE], kernel[SIZE:, :SIZE])
    weights = PairWeights(ridge.left_out(0.5), ridge.left_out(2.0))
    rows = weights.first_step(residuals)
    predicted = weights.second_step_left_out(rows, residuals, pairs, both=True)
    for (first, second), value in zip(pairs, predicted, strict=True):
        without = residuals.toarray()
        for index in (first, second):
            without[index] = without[:, index] = 0
        expected = weights.first[first] @ without @ weights.second[second]
        assert value == pytest.approx(expected)


def test_repeated_pairs_are_averaged():
    pairs = np.array([[0, 1], [0, 1], [1, 0]])
    matrix = residual_matrix(np.array([1.0, 2.0, 5.0]), pairs, (2, 2))
    assert matrix.toarray().tolist() == [[0, 1.5], [5, 0]]


ACIDS = ["C" * length + "C(=O)O" for length in range(1, 9)]
AMINES = ["C" * length + "CN" for length in range(1, 9)]
UNKNOWN_ACID, UNKNOWN_AMINE = "CC(C)CCCC(=O)O", "CC(C)CCCCN"


def interactions(pairs):
    """Label pairs of an acid and an amine as interacting."""
    return [(a, b, int(a.endswith("O") != b.endswith("O"))) for a, b in pairs]


@pytest.fixture
def drug_problem():
    molecules = [*ACIDS, *AMINES]
    every = [(a, b) for i, a in enumerate(molecules) for b in molecules[:i]]
    np.random.default_rng(0).shuffle(every)
    test = [
        *every[:8],
        (ACIDS[0], UNKNOWN_AMINE),
        (UNKNOWN_AMINE, ACIDS[0]),
        (UNKNOWN_ACID, ACIDS[1]),
        (UNKNOWN_ACID, UNKNOWN_AMINE),
    ]
    parts = interactions(every[24:]), interactions(test), interactions(every[8:24])
    return make_problem("ddi", *parts)


def test_label_ridge_predicts_known_and_unknown_molecules(drug_problem):
    solution = kernel_ridge.solve(drug_problem, seed=0)
    labels = [solution.answers[row.number].label_id for row in drug_problem.test_rows]
    assert labels == [row.target for row in drug_problem.test_rows]
    for text in ("both known", "first unknown", "both unknown"):
        assert text in solution.selected
    one, swapped = (solution.answers[row.number] for row in drug_problem.test_rows[8:10])
    assert one.confidence == pytest.approx(swapped.confidence)


def test_label_ridge_predicts_types_by_role():
    train = [(a, b, 4 if a.endswith("O") else 47) for a in ACIDS + AMINES for b in ACIDS[:4]]
    test = [(UNKNOWN_ACID, ACIDS[0], 4), (UNKNOWN_AMINE, ACIDS[0], 47)]
    test += [(UNKNOWN_ACID, UNKNOWN_AMINE, 4), (AMINES[0], UNKNOWN_AMINE, 47)]
    problem = make_problem("ddi_type", train[:-4], test, train[-4:])
    answers = kernel_ridge.solve(problem, seed=0).answers
    assert [answers[row.number].label_id for row in problem.test_rows] == [4, 47, 4, 47]


def test_number_ridge_is_ridge_regression_of_pairs(monkeypatch):
    monkeypatch.setattr(kernel_ridge, "PAIR_PENALTIES", (0.1,))
    train = [(a, b, float(len(a) - 2 * len(b))) for a in ACIDS for b in ("O", "CO", "CCO")]
    test = [(UNKNOWN_ACID, "O", 0.0), (ACIDS[2], "CCCO", 0.0)]
    problem = make_problem("solubility", train[3:], test, train[:3])
    solution = kernel_ridge.solve(problem, seed=0)

    def kernel_of(rows):
        kernels = [
            tanimoto_kernel(
                [row.molecules[role] for row in rows],
                [row.molecules[role] for row in problem.train],
            )
            for role in (0, 1)
        ]
        return (1 + kernels[0]) * (1 + kernels[1])

    targets = np.array([row.target for row in problem.train])
    mean, deviation = targets.mean(), targets.std()
    model = KernelRidge(alpha=0.1, kernel="precomputed")
    model.fit(kernel_of(problem.train), (targets - mean) / deviation)
    expected = model.predict(kernel_of(problem.test_rows)) * deviation + mean
    values = [solution.answers[row.number].value for row in problem.test_rows]
    assert values == pytest.approx(expected)
    assert solution.selected == "penalty 0.1"
