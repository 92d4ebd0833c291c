"""``evaluation.png``: a model at a glance.

Numbers: answers against measurements, and what they are off by. Choices: the ROC curve of two
labels, or the F1 of each of more. Both: whether the confidence can be believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import f1_score, roc_curve

from moltc_vllm.data.dataset import Dataset
from moltc_vllm.evaluate.bootstrap_metrics import Floats
from moltc_vllm.evaluate.classification import classes, positive_scores
from moltc_vllm.evaluate.metric import Answered
from moltc_vllm.evaluate.regression import values
from moltc_vllm.evaluate.scoring import Calibration, Evaluation, MetricResult
from moltc_vllm.tasks import Answer, Choice, Number, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GREY = "#20639b", "#8a8f98"
_MANY = 3000  # points; more are drawn as a density


class PlotError(RuntimeError):
    """There is no plot; the message says why."""


def write_plot(
    path: Path,
    title: str,
    task: Task,
    data: Dataset,
    answers: Mapping[int, Answer],
    evaluation: Evaluation,
) -> None:
    """Draw an evaluation.

    Raises:
        PlotError: If matplotlib is not installed, the answers are lists or texts, or there are
            none.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(f"no plot: {error}") from error
    calibration = evaluation.calibration
    if calibration is None:
        raise PlotError("no plot: there is none of lists and texts")
    if not evaluation.counts.answered:
        raise PlotError("no plot: no row was answered")
    answered = [Answered(row, answers[row.number]) for row in data.rows if row.number in answers]
    if isinstance(task.kind, Number):
        figure = Figure(figsize=(14, 4.6), layout="constrained")
        parity, residuals, reliability = figure.subplots(1, 3)
        _parity(parity, task.kind, answered, evaluation.metrics)
        _residuals(residuals, task.kind, answered, evaluation.metrics)
    else:
        assert isinstance(task.kind, Choice)
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        left, reliability = figure.subplots(1, 2)
        if len(task.kind.labels) == 2:
            _roc(left, task.kind, answered, evaluation.metrics)
        else:
            _f1_of_each(left, task.kind, answered, evaluation.metrics)
    _reliability(reliability, calibration)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150)


def _parity(
    axes: Axes, kind: Number, answered: Sequence[Answered], metrics: Mapping[str, MetricResult]
) -> None:
    target, value = _both(answered)
    low, high = min(target.min(), value.min()), max(target.max(), value.max())
    margin = 0.04 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    _points(axes, target, value)
    axes.plot(ends, ends, color=_GREY, linewidth=1)
    axes.set(
        xlim=ends,
        ylim=ends,
        aspect="equal",
        xlabel=_quantity("measured", kind),
        ylabel=_quantity("answered", kind),
        title=f"MAE {_said(metrics['mae'])}\nR² {_said(metrics['r2'])}",
    )


def _residuals(
    axes: Axes, kind: Number, answered: Sequence[Answered], metrics: Mapping[str, MetricResult]
) -> None:
    target, value = _both(answered)
    _points(axes, target, value - target)
    axes.axhline(0, color=_GREY, linewidth=1)
    axes.set(
        xlabel=_quantity("measured", kind),
        ylabel=_quantity("answered − measured", kind),
        title=f"RMSE {_said(metrics['rmse'])}\n"
        f"interval hit rate {_said(metrics['interval_hit_rate'])}",
    )


def _roc(
    axes: Axes, kind: Choice, answered: Sequence[Answered], metrics: Mapping[str, MetricResult]
) -> None:
    truth, score, there = positive_scores(kind, answered)
    if metrics["auroc"].value is not None:
        false, true, _ = roc_curve(truth[there], score[there])
        axes.plot(false, true, color=_BLUE, linewidth=1.8)
    axes.plot((0, 1), (0, 1), color=_GREY, linewidth=1)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel="false positive rate",
        ylabel="true positive rate",
        title=f"AUROC {_said(metrics['auroc'])}\naccuracy {_said(metrics['accuracy'])}",
    )


def _f1_of_each(
    axes: Axes, kind: Choice, answered: Sequence[Answered], metrics: Mapping[str, MetricResult]
) -> None:
    truth, given = classes(kind, answered)
    present, sizes = np.unique(truth, return_counts=True)
    f1 = f1_score(truth, given, labels=present, average=None, zero_division=0)
    axes.scatter(sizes, f1, s=18, color=_BLUE, alpha=0.7, linewidths=0)
    axes.set(
        xscale="log",
        ylim=(-0.02, 1.02),
        xlabel="rows of the class",
        ylabel="F1 of the class",
        title=f"accuracy {_said(metrics['accuracy'])}\nmacro F1 {_said(metrics['macro_f1'])}",
    )


def _reliability(axes: Axes, calibration: Calibration) -> None:
    confidence = [one.confidence for one in calibration.bins]
    rate = [one.hit_rate for one in calibration.bins]
    axes.plot((0, 1), (0, 1), color=_GREY, linewidth=1)
    axes.plot(confidence, rate, color=_BLUE, marker="o", markersize=5, linewidth=1.2)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel="confidence, mean of the bin",
        ylabel=calibration.of.replace("_", " ") + " of the bin",
        title=f"expected calibration error\n{_said(calibration.error)}",
    )


def _points(axes: Axes, x: Floats, y: Floats) -> None:
    if len(x) > _MANY:
        from matplotlib.colors import LogNorm

        shades = LogNorm(vmin=0.2)  # less than one point: a single one is still to be seen
        axes.hexbin(x, y, gridsize=60, norm=shades, mincnt=1, cmap="Blues", linewidths=0.2)
    else:
        axes.scatter(x, y, s=9, color=_BLUE, alpha=0.5, linewidths=0)


def _both(answered: Sequence[Answered]) -> tuple[Floats, Floats]:
    target, value = values(answered)
    there = ~np.isnan(value)
    return target[there], value[there]


def _quantity(what: str, kind: Number) -> str:
    return f"{what}, {kind.unit}" if kind.unit else what


def _said(metric: MetricResult) -> str:
    if metric.value is None:
        return f"– ({metric.reason})"
    interval = "" if metric.low is None else f" [{metric.low:.3g}, {metric.high:.3g}]"
    return f"{metric.value:.3g}{interval}"
