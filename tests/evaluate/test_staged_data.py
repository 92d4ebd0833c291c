"""Evaluation on the staged data: a perfect engine, and engines without knowledge."""

import statistics
from collections import Counter

import numpy as np
import pytest

from moltc_vllm.data import read_dataset
from moltc_vllm.evaluate.predict import predict_rows
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.tasks import Choice, Number, Terms, get_task
from tests.evaluate.fakes import FakeEngine, make_answer
from tests.paths import data_dir

FILES = [
    ("ddi", "ddi_chchminer"),
    ("ddi", "ddi_zhangddi"),
    ("ddi_type", "ddi_drugbank86"),
    ("ddi_side_effects", "ddi_twosides"),
    ("solvation", "solv_combisolv_exp"),
    ("solvation", "solv_freesolv"),
    ("solubility", "solv_solubility_logs"),
    ("absorption", "chromophore_deep4chem"),
    ("emission", "chromophore_deep4chem"),
    ("lifetime", "chromophore_deep4chem"),
    ("quantum_yield", "chromophore_deep4chem"),
    ("caption", "captions"),
]


def read_staged(name, file, **options):
    return read_dataset(data_dir() / f"{file}.csv.gz", get_task(name), **options)


def evaluate_engine(name, data, answer):
    """Evaluate an engine that computes answers from rows."""
    task = get_task(name)
    rows = {row.number: row for row in data.rows}
    engine = FakeEngine(lambda _, pair: answer(rows[pair.row]))
    answers = {row.number: given for row, given in predict_rows(engine, task, data.rows)}
    return evaluate(task, data, answers, resamples=30)


def always(answer):
    return lambda row: answer


@pytest.mark.parametrize(("name", "file"), FILES)
def test_perfect_engine_has_perfect_metrics(name, file):
    kind = get_task(name).kind
    data = read_staged(name, file, limit=500)
    evaluation = evaluate_engine(name, data, lambda row: make_answer(name, row.target, 1.0))
    assert evaluation.counts.answered == evaluation.counts.asked == len(data.rows) > 400
    assert evaluation.counts.failed == 0
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    assert metrics.pop("parse_failure_rate") == 0
    if isinstance(kind, Number):
        rounding = 0.5 * 10**-kind.decimals + 1e-9
        assert metrics.pop("mae") <= rounding
        assert metrics.pop("rmse") <= rounding
        assert metrics.pop("r2") == pytest.approx(1, abs=1e-3)
        # Only calibrated answers have a prediction interval.
        assert metrics.pop("interval_coverage") is None
        assert metrics.pop("mean_interval_width") is None
    if isinstance(kind, Terms):
        assert 0.3 < metrics.pop("constant_f1") < 0.8
    assert metrics
    assert metrics == dict.fromkeys(metrics, 1.0)
    if evaluation.calibration is not None:
        assert evaluation.calibration.error.value == 0
    for metric in evaluation.metrics.values():
        if metric.value is not None:
            assert metric.low <= metric.value <= metric.high


@pytest.mark.parametrize("file", ["ddi_chchminer", "ddi_zhangddi"])
@pytest.mark.parametrize("label", [0, 1])
def test_constant_label_scores_its_frequency(file, label):
    data = read_staged("ddi", file, split="test")
    share = np.mean([row.target == label for row in data.rows])
    positives = np.mean([row.target == 1 for row in data.rows])
    evaluation = evaluate_engine("ddi", data, always(make_answer("ddi", label, 0.75)))
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    assert metrics["accuracy"] == pytest.approx(share)
    assert metrics["auroc"] == 0.5
    assert metrics["aupr"] == pytest.approx(positives)
    assert metrics["f1"] == pytest.approx(2 * positives / (1 + positives) if label else 0)
    assert evaluation.calibration.error.value == pytest.approx(abs(0.75 - share))


def test_constant_interaction_type_scores_its_frequency():
    data = read_staged("ddi_type", "ddi_drugbank86", split="test")
    sizes = Counter(row.target for row in data.rows)
    label, size = sizes.most_common(1)[0]
    assert label == 49
    share = size / len(data.rows)
    evaluation = evaluate_engine("ddi_type", data, always(make_answer("ddi_type", label)))
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    f1 = 2 * share / (1 + share)
    assert metrics["accuracy"] == pytest.approx(share)
    assert metrics["macro_f1"] == pytest.approx(f1 / len(sizes))
    assert metrics["weighted_f1"] == pytest.approx(f1 * share)


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, file) for name, file in FILES if isinstance(get_task(name).kind, Number)],
)
def test_constant_value_explains_no_variance(name, file):
    data = read_staged(name, file)
    targets = [row.target for row in data.rows]
    mean = statistics.fmean(targets)
    evaluation = evaluate_engine(name, data, always(make_answer(name, mean)))
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    rounding = 0.5 * 10 ** -get_task(name).kind.decimals
    assert metrics["r2"] == pytest.approx(0, abs=1e-4)
    assert metrics["rmse"] == pytest.approx(statistics.pstdev(targets), rel=1e-4)
    assert metrics["mae"] == pytest.approx(
        statistics.fmean(abs(target - mean) for target in targets), abs=rounding
    )
    assert 0 < metrics["interval_hit_rate"] < 0.5


def test_engine_with_known_confidence_is_calibrated():
    """The AUROC of the engine follows from the distribution of its confidence."""
    data = read_staged("ddi", "ddi_zhangddi", limit=4000)
    generator = np.random.default_rng(0)

    def answer(row):
        confidence = generator.uniform(0.5, 1)
        right = generator.random() < confidence
        return make_answer("ddi", row.target if right else 1 - row.target, confidence)

    evaluation = evaluate_engine("ddi", data, answer)
    assert evaluation.calibration.error.value < 0.03
    assert [entry.rows for entry in evaluation.calibration.bins] == [400] * 10
    assert evaluation.metrics["accuracy"].value == pytest.approx(0.75, abs=0.03)
    # Balanced classes with uniform scores have densities 2s and 2(1 - s), which gives 5/6.
    assert evaluation.metrics["auroc"].value == pytest.approx(5 / 6, abs=0.03)


def test_failed_rows_lower_accuracy_but_not_mae():
    """A third of the answers of a perfect engine fail."""

    def failing(name):
        def answer(row):
            if row.number % 3 == 0:
                return get_task(name).failed("unparsed", "because")
            return make_answer(name, row.target)

        return answer

    data = read_staged("ddi", "ddi_chchminer", limit=900)
    failed = sum(row.number % 3 == 0 for row in data.rows)
    choice = evaluate_engine("ddi", data, failing("ddi"))
    assert choice.metrics["accuracy"].value == pytest.approx(1 - failed / 900)
    assert choice.counts.unparsed == choice.counts.failed == failed
    assert choice.metrics["parse_failure_rate"].value == pytest.approx(failed / 900)
    assert isinstance(get_task("ddi").kind, Choice)
    number = evaluate_engine(
        "solubility", read_staged("solubility", "solv_solubility_logs"), failing("solubility")
    )
    assert number.metrics["mae"].value <= 0.005 + 1e-9
    assert number.metrics["mae"].rows == number.counts.answered < number.counts.asked
