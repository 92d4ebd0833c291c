"""``evaluation.png``: plots of an evaluation.

A number task has a parity plot and residuals, a binary task a ROC curve, and a task with more
labels the F1 of each label. All of them have a reliability diagram of the confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import f1_score, roc_curve

from moltc_vllm.data.dataset import Dataset
from moltc_vllm.evaluate.bootstrap_metrics import Floats
from moltc_vllm.evaluate.classification import class_indices, positive_scores
from moltc_vllm.evaluate.metric import AnsweredRow
from moltc_vllm.evaluate.regression import targets_and_values
from moltc_vllm.evaluate.scoring import Calibration, Evaluation, MetricResult
from moltc_vllm.tasks import Answer, Choice, Number, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GRAY = "#20639b", "#8a8f98"
_MAX_POINTS = 3000  # more points are drawn as a density


class PlotError(RuntimeError):
    """An evaluation that cannot be plotted; the message states the reason."""


def write_plot(
    path: Path,
    title: str,
    task: Task,
    data: Dataset,
    answers: Mapping[int, Answer],
    evaluation: Evaluation,
) -> None:
    """Plot an evaluation.

    Args:
        path: PNG file to write.
        title: Title of the figure.
        task: Task of the rows.
        data: Rows with their targets.
        answers: Answers by row number.
        evaluation: Metrics of the answers.

    Raises:
        PlotError: If matplotlib is not installed, the task's answers are lists or texts, or no row
            was answered.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(f"no plot: {error}") from error
    if evaluation.calibration is None:
        raise PlotError("no plot: answers that are lists or texts are not plotted")
    if not evaluation.counts.answered:
        raise PlotError("no plot: no row was answered")
    answered = [AnsweredRow(row, answers[row.number]) for row in data.rows if row.number in answers]
    if isinstance(task.kind, Number):
        figure = Figure(figsize=(14, 4.6), layout="constrained")
        parity, residuals, reliability = figure.subplots(1, 3)
        _plot_parity(parity, task.kind, answered, evaluation.metrics)
        _plot_residuals(residuals, task.kind, answered, evaluation.metrics)
    else:
        assert isinstance(task.kind, Choice)
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        left, reliability = figure.subplots(1, 2)
        plot_labels = _plot_roc if len(task.kind.labels) == 2 else _plot_class_f1
        plot_labels(left, task.kind, answered, evaluation.metrics)
    _plot_reliability(reliability, evaluation.calibration)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150)


def _plot_parity(
    axes: Axes, kind: Number, answered: Sequence[AnsweredRow], metrics: Mapping[str, MetricResult]
) -> None:
    target, value = _valid_targets_and_values(answered)
    low, high = min(target.min(), value.min()), max(target.max(), value.max())
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    _plot_points(axes, target, value)
    axes.plot(limits, limits, color=_GRAY, linewidth=1)
    axes.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel=_with_unit("measured", kind),
        ylabel=_with_unit("predicted", kind),
        title=f"MAE {_format_metric(metrics['mae'])}\nR² {_format_metric(metrics['r2'])}",
    )


def _plot_residuals(
    axes: Axes, kind: Number, answered: Sequence[AnsweredRow], metrics: Mapping[str, MetricResult]
) -> None:
    target, value = _valid_targets_and_values(answered)
    _plot_points(axes, target, value - target)
    axes.axhline(0, color=_GRAY, linewidth=1)
    axes.set(
        xlabel=_with_unit("measured", kind),
        ylabel=_with_unit("predicted − measured", kind),
        title=f"RMSE {_format_metric(metrics['rmse'])}\n"
        f"interval hit rate {_format_metric(metrics['interval_hit_rate'])}",
    )


def _plot_roc(
    axes: Axes, kind: Choice, answered: Sequence[AnsweredRow], metrics: Mapping[str, MetricResult]
) -> None:
    positive, score, valid = positive_scores(kind, answered)
    if metrics["auroc"].value is not None:
        false_positive_rate, true_positive_rate, _ = roc_curve(positive[valid], score[valid])
        axes.plot(false_positive_rate, true_positive_rate, color=_BLUE, linewidth=1.8)
    axes.plot((0, 1), (0, 1), color=_GRAY, linewidth=1)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel="false positive rate",
        ylabel="true positive rate",
        title=f"AUROC {_format_metric(metrics['auroc'])}\n"
        f"accuracy {_format_metric(metrics['accuracy'])}",
    )


def _plot_class_f1(
    axes: Axes, kind: Choice, answered: Sequence[AnsweredRow], metrics: Mapping[str, MetricResult]
) -> None:
    truth, predicted = class_indices(kind, answered)
    present, sizes = np.unique(truth, return_counts=True)
    f1 = f1_score(truth, predicted, labels=present, average=None, zero_division=0)
    axes.scatter(sizes, f1, s=18, color=_BLUE, alpha=0.7, linewidths=0)
    axes.set(
        xscale="log",
        ylim=(-0.02, 1.02),
        xlabel="rows of the class",
        ylabel="F1 of the class",
        title=f"accuracy {_format_metric(metrics['accuracy'])}\n"
        f"macro F1 {_format_metric(metrics['macro_f1'])}",
    )


def _plot_reliability(axes: Axes, calibration: Calibration) -> None:
    confidence = [entry.confidence for entry in calibration.bins]
    hit_rate = [entry.hit_rate for entry in calibration.bins]
    axes.plot((0, 1), (0, 1), color=_GRAY, linewidth=1)
    axes.plot(confidence, hit_rate, color=_BLUE, marker="o", markersize=5, linewidth=1.2)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel="mean confidence of the bin",
        ylabel=calibration.of.replace("_", " ") + " of the bin",
        title=f"expected calibration error\n{_format_metric(calibration.error)}",
    )


def _plot_points(axes: Axes, x: Floats, y: Floats) -> None:
    if len(x) > _MAX_POINTS:
        from matplotlib.colors import LogNorm

        shades = LogNorm(vmin=0.2)  # below one point, so that a single point is visible
        axes.hexbin(x, y, gridsize=60, norm=shades, mincnt=1, cmap="Blues", linewidths=0.2)
    else:
        axes.scatter(x, y, s=9, color=_BLUE, alpha=0.5, linewidths=0)


def _valid_targets_and_values(answered: Sequence[AnsweredRow]) -> tuple[Floats, Floats]:
    target, value = targets_and_values(answered)
    valid = ~np.isnan(value)
    return target[valid], value[valid]


def _with_unit(label: str, kind: Number) -> str:
    return f"{label}, {kind.unit}" if kind.unit else label


def _format_metric(metric: MetricResult) -> str:
    if metric.value is None:
        return f"– ({metric.reason})"
    interval = "" if metric.low is None else f" [{metric.low:.3g}, {metric.high:.3g}]"
    return f"{metric.value:.3g}{interval}"
