"""On the staged data: an oracle is perfect, and who knows nothing has the trivial scores."""

import statistics
from collections import Counter

import numpy as np
import pytest

from moltc_vllm.data import read_dataset
from moltc_vllm.evaluate.predict import ask
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.tasks import Choice, Number, get_task
from tests.evaluate.fakes import FakeEngine, said
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


def staged(name, file, **options):
    return read_dataset(data_dir() / f"{file}.csv.gz", get_task(name), **options)


def evaluated(name, data, answer):
    """Ask an engine that answers by row."""
    task = get_task(name)
    rows = {row.number: row for row in data.rows}
    engine = FakeEngine(lambda _, pair: answer(rows[pair.row]))
    answers = {row.number: got for row, got in ask(engine, task, data.rows)}
    return evaluate(task, data, answers, resamples=30)


def always(answer):
    return lambda row: answer


@pytest.mark.parametrize(("name", "file"), FILES)
def test_an_oracle_is_perfect(name, file):
    kind = get_task(name).kind
    data = staged(name, file, limit=500)
    evaluation = evaluated(name, data, lambda row: said(name, row.target, 1.0))
    assert evaluation.counts.answered == evaluation.counts.asked == len(data.rows) > 400
    assert evaluation.counts.failed == 0
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    assert metrics.pop("parse_failure_rate") == 0
    if isinstance(kind, Number):
        rounding = 0.5 * 10**-kind.decimals + 1e-9
        assert metrics.pop("mae") <= rounding
        assert metrics.pop("rmse") <= rounding
        assert metrics.pop("r2") == pytest.approx(1, abs=1e-3)
    assert metrics
    assert metrics == dict.fromkeys(metrics, 1.0)
    if evaluation.calibration is not None:
        assert evaluation.calibration.error.value == 0
    for metric in evaluation.metrics.values():
        assert metric.low <= metric.value <= metric.high


@pytest.mark.parametrize("file", ["ddi_chchminer", "ddi_zhangddi"])
@pytest.mark.parametrize("label", [0, 1])
def test_one_label_for_all_is_the_share_of_that_label(file, label):
    data = staged("ddi", file, split="test")
    share = np.mean([row.target == label for row in data.rows])
    positives = np.mean([row.target == 1 for row in data.rows])
    evaluation = evaluated("ddi", data, always(said("ddi", label, 0.75)))
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    assert metrics["accuracy"] == pytest.approx(share)
    assert metrics["auroc"] == 0.5
    assert metrics["aupr"] == pytest.approx(positives)
    assert metrics["f1"] == pytest.approx(2 * positives / (1 + positives) if label else 0)
    assert evaluation.calibration.error.value == pytest.approx(abs(0.75 - share))


def test_the_most_frequent_type_for_all():
    data = staged("ddi_type", "ddi_drugbank86", split="test")
    sizes = Counter(row.target for row in data.rows)
    label, size = sizes.most_common(1)[0]
    assert label == 49
    share = size / len(data.rows)
    evaluation = evaluated("ddi_type", data, always(said("ddi_type", label)))
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    f1 = 2 * share / (1 + share)
    assert metrics["accuracy"] == pytest.approx(share)
    assert metrics["macro_f1"] == pytest.approx(f1 / len(sizes))
    assert metrics["weighted_f1"] == pytest.approx(f1 * share)


@pytest.mark.parametrize(
    ("name", "file"), [one for one in FILES if isinstance(get_task(one[0]).kind, Number)]
)
def test_one_value_for_all_explains_nothing(name, file):
    data = staged(name, file)
    targets = [row.target for row in data.rows]
    middle = statistics.fmean(targets)
    evaluation = evaluated(name, data, always(said(name, middle)))
    metrics = {key: metric.value for key, metric in evaluation.metrics.items()}
    rounding = 0.5 * 10 ** -get_task(name).kind.decimals
    assert metrics["r2"] == pytest.approx(0, abs=1e-4)
    assert metrics["rmse"] == pytest.approx(statistics.pstdev(targets), rel=1e-4)
    assert metrics["mae"] == pytest.approx(
        statistics.fmean(abs(target - middle) for target in targets), abs=rounding
    )
    assert 0 < metrics["interval_hit_rate"] < 0.5


def test_right_as_often_as_it_says_and_in_the_right_order():
    """An engine of known confidence: calibrated, and its AUROC follows from how sure it is."""
    data = staged("ddi", "ddi_zhangddi", limit=4000)
    generator = np.random.default_rng(0)

    def answer(row):
        confidence = generator.uniform(0.5, 1)
        right = generator.random() < confidence
        return said("ddi", row.target if right else 1 - row.target, confidence)

    evaluation = evaluated("ddi", data, answer)
    assert evaluation.calibration.error.value < 0.03
    assert [one.rows for one in evaluation.calibration.bins] == [400] * 10
    assert evaluation.metrics["accuracy"].value == pytest.approx(0.75, abs=0.03)
    # With balanced classes and scores evenly over 0 to 1, densities 2s and 2(1 - s): 5/6.
    assert evaluation.metrics["auroc"].value == pytest.approx(5 / 6, abs=0.03)


def test_failures_only_cost_what_they_should():
    """A third of an oracle's answers fail: a third of the accuracy, nothing of the errors."""

    def failing(name):
        task = get_task(name)
        return lambda row: (
            task.failed("unparsed", "because") if row.number % 3 == 0 else said(name, row.target)
        )

    data = staged("ddi", "ddi_chchminer", limit=900)
    failed = sum(row.number % 3 == 0 for row in data.rows)
    choice = evaluated("ddi", data, failing("ddi"))
    assert choice.metrics["accuracy"].value == pytest.approx(1 - failed / 900)
    assert choice.counts.unparsed == choice.counts.failed == failed
    assert choice.metrics["parse_failure_rate"].value == pytest.approx(failed / 900)
    assert isinstance(get_task("ddi").kind, Choice)
    number = evaluated(
        "solubility", staged("solubility", "solv_solubility_logs"), failing("solubility")
    )
    assert number.metrics["mae"].value <= 0.005 + 1e-9
    assert number.metrics["mae"].rows == number.counts.answered < number.counts.asked
