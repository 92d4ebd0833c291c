"""Fit of calibration parameters to synthetic pairs with known errors."""

import numpy as np
import pytest

from moltc_vllm.evaluate.fit_calibration import MIN_ROWS, MeasuredPair, fit_task, is_hit
from moltc_vllm.models.answer_calibrator import AnswerCalibrator
from moltc_vllm.models.answer_parsing import RawAnswer
from moltc_vllm.tasks import Answer, get_task

SOLVATION, DDI = get_task("solvation"), get_task("ddi")
CENTERS = np.array([sum(interval) / 2 for interval in SOLVATION.kind.intervals()])


def numeric_pair(generator, error, familiarities=(), width=1.0):
    """A pair whose distribution is a normal one, and whose value misses the target by an error."""
    value = generator.uniform(-15, 0)
    logs = -0.5 * ((CENTERS - value) / width) ** 2
    likeliest = SOLVATION.kind.intervals()[int(logs.argmax())]
    answer = Answer(
        task="solvation",
        status="ok",
        value=value,
        likeliest_interval=likeliest,
        confidence=0.2,
        unit="kcal/mol",
    )
    return MeasuredPair(RawAnswer(answer, logs), value + error, familiarities)


def label_pair(generator, probability, accuracy, familiarities=(), label=None):
    label = int(generator.integers(2)) if label is None else label
    answer = Answer(
        task="ddi",
        status="ok",
        label=DDI.kind.labels[label].name,
        label_id=label,
        confidence=probability,
    )
    truth = label if generator.random() < accuracy else 1 - label
    return MeasuredPair(RawAnswer(answer), float(truth), familiarities)


def covered(calibration, pairs, coverage):
    hits = []
    for pair in pairs:
        group = calibration.find(pair.familiarities)
        answer = AnswerCalibrator.apply(SOLVATION, pair.raw, group, coverage)
        assert answer.low <= answer.value <= answer.high
        hits.append(answer.low <= pair.target <= answer.high)
    return np.mean(hits)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
def test_intervals_cover_new_pairs_whatever_the_model_believes(width):
    generator = np.random.default_rng(0)
    errors = generator.laplace(0, 0.6, 3000)
    pairs = [numeric_pair(generator, error, width=width) for error in errors]
    calibration = fit_task(SOLVATION, pairs[:1500])
    for coverage in (0.5, 0.8, 0.9, 0.95):
        assert covered(calibration, pairs[1500:], coverage) == pytest.approx(coverage, abs=0.03)


def test_standard_deviation_is_the_error_of_new_pairs():
    generator = np.random.default_rng(1)
    pairs = [numeric_pair(generator, error) for error in generator.normal(0, 0.7, 2000)]
    group = fit_task(SOLVATION, pairs).groups["all"]
    deviations = [AnswerCalibrator.apply(SOLVATION, pair.raw, group, 0.8).std for pair in pairs]
    assert np.mean(deviations) == pytest.approx(0.7, rel=0.05)


def test_unfamiliar_molecules_get_wider_intervals_of_the_same_coverage():
    generator = np.random.default_rng(2)
    classes = {"known": 0.3, "similar": 0.8, "unlike": 2.0}
    pairs = [
        numeric_pair(generator, generator.normal(0, error), (name, "known"))
        for name, error in classes.items()
        for _ in range(2400)
    ]
    calibration = fit_task(SOLVATION, pairs[::2])
    widths = []
    for name in classes:
        members = [pair for pair in pairs[1::2] if pair.familiarities[0] == name]
        assert covered(calibration, members, 0.8) == pytest.approx(0.8, abs=0.05)
        group = calibration.find((name, "known"))
        answer = AnswerCalibrator.apply(SOLVATION, members[0].raw, group, 0.8)
        widths.append(answer.high - answer.low)
    assert widths == sorted(widths)
    assert widths[2] > 3 * widths[0]


def test_interval_grows_with_the_coverage_and_stays_within_the_bounds():
    generator = np.random.default_rng(3)
    pairs = [numeric_pair(generator, error) for error in generator.standard_cauchy(1000) * 20]
    pairs = [pair._replace(target=min(max(pair.target, -80), 40)) for pair in pairs]
    group = fit_task(SOLVATION, pairs).groups["all"]
    previous = None
    for coverage in (0.1, 0.3, 0.5, 0.8, 0.9, 0.99):
        answer = AnswerCalibrator.apply(SOLVATION, pairs[0].raw, group, coverage)
        assert -80 <= answer.low <= answer.value <= answer.high <= 40
        if previous is not None:
            assert answer.low <= previous.low
            assert previous.high <= answer.high
        previous = answer


def test_confidence_of_labels_becomes_their_accuracy():
    generator = np.random.default_rng(4)
    accuracies = {"known": 0.95, "unlike": 0.6}
    pairs = [
        label_pair(generator, generator.uniform(0.9, 0.999), accuracy, (name, "known"))
        for name, accuracy in accuracies.items()
        for _ in range(1000)
    ]
    calibration = fit_task(DDI, pairs)
    for name, accuracy in accuracies.items():
        members = [pair for pair in pairs if pair.familiarities[0] == name]
        group = calibration.find((name, "known"), symmetric=True)
        confidences = [
            AnswerCalibrator.apply(DDI, pair.raw, group, 0.8).confidence for pair in members
        ]
        assert np.mean(confidences) == pytest.approx(accuracy, abs=0.03)


def test_confidence_tells_a_label_that_is_wrong_more_often():
    generator = np.random.default_rng(5)
    pairs = [
        label_pair(generator, 0.8, accuracy, label=label)
        for label, accuracy in ((0, 0.9), (1, 0.65))
        for _ in range(1000)
    ]
    group = fit_task(DDI, pairs).groups["all"]
    assert group.confidence(0.8, 0, 2) == pytest.approx(0.9, abs=0.04)
    assert group.confidence(0.8, 1, 2) == pytest.approx(0.65, abs=0.04)


def test_labels_stay_as_they_are():
    generator = np.random.default_rng(6)
    pairs = [label_pair(generator, 0.99, 0.2) for _ in range(500)]
    group = fit_task(DDI, pairs).groups["all"]
    answer = AnswerCalibrator.apply(DDI, pairs[0].raw, group, 0.8)
    assert answer.label == pairs[0].raw.answer.label
    assert answer.confidence == pytest.approx(0.5, abs=1e-3)


def test_groups_of_few_pairs_use_the_larger_group():
    generator = np.random.default_rng(7)
    pairs = [label_pair(generator, 0.9, 0.8, ("known", "known")) for _ in range(MIN_ROWS)]
    pairs += [label_pair(generator, 0.9, 0.1, ("known", "unlike")) for _ in range(MIN_ROWS - 1)]
    groups = fit_task(DDI, pairs).groups
    assert set(groups) == {"all", "known", "known+known"}
    assert groups["all"].rows == 2 * MIN_ROWS - 1


def test_too_few_pairs_give_no_calibration():
    generator = np.random.default_rng(8)
    pairs = [label_pair(generator, 0.9, 0.8) for _ in range(MIN_ROWS - 1)]
    failed = MeasuredPair(RawAnswer(DDI.failed("error", "x")), 1.0)
    assert fit_task(DDI, [*pairs, failed]) is None
    assert fit_task(DDI, []) is None


def test_hit_of_a_number_is_its_interval():
    pair = numeric_pair(np.random.default_rng(9), 0.0)
    low, high = pair.raw.answer.likeliest_interval
    assert is_hit(SOLVATION, pair.raw, low)
    assert not is_hit(SOLVATION, pair.raw, high)
