"""Fit the parameters of `moltc_vllm.models.calibration` to measured pairs.

The log-odds of confidences are scaled and shifted by logistic regression of the hits; prediction
intervals take their width from the quantiles of conformity scores. Groups of few pairs stay near
the parameters of the larger group that contains them.

Source: temperature scaling, Guo et al., ICML 2017; Platt scaling; conformalized quantile
regression, Romano et al. 2019, by group of familiarity (Mondrian conformal prediction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from moltc_vllm.evaluate.bootstrap_metrics import Flags, Floats
from moltc_vllm.models.answer_calibrator import raw_probability
from moltc_vllm.models.answer_parsing import RawAnswer
from moltc_vllm.models.calibration import ALL, GroupCalibration, TaskCalibration, group_names
from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.tasks.answer import Familiarity
from moltc_vllm.tasks.interval_distribution import (
    conformity_scores,
    half_widths,
    mean_positions,
    standard_deviations,
)

MIN_ROWS = 100
"""Smallest number of pairs of a group with parameters of its own."""

SCORE_LEVELS = 201
"""Number of stored quantiles of the conformity scores."""

_MIN_PROBABILITY = 1e-6
_PRIOR = 4.0
"""Weight of the parent group's parameters, as the inverse variance of a normal prior."""


class MeasuredPair(NamedTuple):
    """A pair with its raw answer and its measured target.

    Attributes:
        raw: Generated answer before calibration.
        target: Measured number, or the number of the true label.
        familiarities: Familiarity of each molecule; empty if it is not known.
    """

    raw: RawAnswer
    target: float
    familiarities: tuple[Familiarity, ...] = ()


@dataclass(frozen=True)
class _Columns:
    """Answered pairs as arrays.

    Attributes:
        logits: ``[N]`` log-odds of the model's own confidence.
        hits: ``[N]``, whether label or likeliest interval are correct.
        tilts: ``[N]`` 1 and -1 for the second and first of two labels, 0 for other answers.
        scores: ``[N]`` conformity scores; NaN without a distribution.
        deviations: ``[N]`` errors in units of the standard deviation; NaN without a distribution.
        groups: Names of the groups of each pair.
    """

    logits: Floats
    hits: Flags
    tilts: Floats
    scores: Floats
    deviations: Floats
    groups: list[tuple[str, ...]]

    def members(self, group: str) -> Flags:
        """Return whether each pair belongs to a group, ``[N]``."""
        return np.array([group in names for names in self.groups], dtype=bool)


def fit_task(task: Task, pairs: Sequence[MeasuredPair]) -> TaskCalibration | None:
    """Fit the calibration of one task.

    Args:
        task: Task with labels or numbers.
        pairs: Measured pairs, which the model was not trained on.

    Returns:
        The calibration; ``None`` if fewer than `MIN_ROWS` pairs have an answer with a confidence.
    """
    columns = _columns(task, pairs)
    if len(columns.hits) < MIN_ROWS:
        return None
    groups: dict[str, GroupCalibration] = {}
    for name in sorted({name for names in columns.groups for name in names}, key=_depth):
        members = columns.members(name)
        if members.sum() >= MIN_ROWS:
            groups[name] = _fit_group(columns, members, _parent(name, groups))
    return TaskCalibration(groups=groups)


def is_hit(task: Task, raw: RawAnswer, target: float) -> bool:
    """Return whether the label is correct, or the likeliest interval contains the number."""
    answer = raw.answer
    if not isinstance(task.kind, Number):
        return answer.label_id == int(target)
    interval = answer.likeliest_interval
    return interval is not None and task.kind.contains(interval, target)


def _columns(task: Task, pairs: Sequence[MeasuredPair]) -> _Columns:
    kept = [
        (pair, probability)
        for pair in pairs
        if pair.raw.answer.status == "ok" and (probability := raw_probability(pair.raw)) is not None
    ]
    answered = [pair for pair, _ in kept]
    probabilities = np.array([probability for _, probability in kept])
    clipped = probabilities.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    scores, deviations = _number_columns(task, answered)
    return _Columns(
        np.log(clipped / (1 - clipped)),
        np.array([is_hit(task, pair.raw, pair.target) for pair in answered], dtype=bool),
        _tilts(task, answered),
        scores,
        deviations,
        [tuple(group_names(pair.familiarities, symmetric=task.symmetric)) for pair in answered],
    )


def _tilts(task: Task, pairs: Sequence[MeasuredPair]) -> Floats:
    if not isinstance(task.kind, Choice) or len(task.kind.labels) != 2:
        return np.zeros(len(pairs))
    second = task.kind.labels[1].id
    return np.array([1.0 if pair.raw.answer.label_id == second else -1.0 for pair in pairs])


def _number_columns(task: Task, pairs: Sequence[MeasuredPair]) -> tuple[Floats, Floats]:
    """Return conformity scores and errors in standard deviations; NaN without a distribution."""
    scores, deviations = np.full((2, len(pairs)), np.nan)
    rows = np.array(
        [row for row, pair in enumerate(pairs) if pair.raw.log_probabilities is not None],
        dtype=np.int64,
    )
    if not isinstance(task.kind, Number) or not len(rows):
        return scores, deviations
    kind = task.kind
    probabilities = _softmax(np.stack([pairs[row].raw.log_probabilities for row in rows]))
    targets = np.array([pairs[row].target for row in rows])
    positions = mean_positions(probabilities)
    target_positions = np.array([kind.position(target) for target in targets])
    values = np.array([kind.value_at(float(position)) for position in positions])
    widths = half_widths(probabilities, positions)
    scores[rows] = conformity_scores(positions, target_positions, widths)
    deviations[rows] = (targets - values) / standard_deviations(kind, probabilities, values)
    return scores, deviations


def _fit_group(
    columns: _Columns, members: Flags, parent: GroupCalibration | None
) -> GroupCalibration:
    prior = parent or GroupCalibration(rows=1)
    slope, offset, tilt = _fit_confidence(
        columns.logits[members],
        columns.hits[members],
        columns.tilts[members],
        np.array([prior.slope, prior.offset, prior.tilt]),
    )
    scores = columns.scores[members]
    scores = scores[~np.isnan(scores)]
    deviations = columns.deviations[members]
    deviations = deviations[~np.isnan(deviations)]
    has_numbers = len(scores) >= MIN_ROWS
    return GroupCalibration(
        rows=len(scores) if has_numbers else int(members.sum()),
        slope=slope,
        offset=offset,
        tilt=tilt,
        std_scale=float(np.sqrt(np.mean(deviations**2))) if has_numbers else 1.0,
        scores=_quantiles(scores) if has_numbers else (),
    )


def _fit_confidence(
    logits: Floats, hits: Flags, tilts: Floats, prior: Floats
) -> tuple[float, float, float]:
    """Return slope, offset and tilt of maximal likelihood, with a prior around given values."""
    features = np.stack([logits, np.ones_like(logits), tilts], axis=1)  # [N, 3]
    signs = np.where(hits, 1.0, -1.0)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        margins = signs * (features @ parameters)
        difference = parameters - prior
        value = np.logaddexp(0.0, -margins).sum() + _PRIOR / 2 * (difference @ difference)
        weights = -signs / (1 + np.exp(margins.clip(-50, 50)))
        return float(value), features.T @ weights + _PRIOR * difference

    bounds = [(0.0, None), (None, None), (None, None) if tilts.any() else (0.0, 0.0)]
    fitted = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(fitted[0]), float(fitted[1]), float(fitted[2])


def _quantiles(scores: Floats) -> tuple[float, ...]:
    levels = np.linspace(0.0, 1.0, SCORE_LEVELS)
    quantiles = np.quantile(scores, levels, method="inverted_cdf")
    return tuple(round(float(score), 5) for score in quantiles)


def _softmax(logs: Floats) -> Floats:
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def _depth(name: str) -> tuple[int, str]:
    """Sort key of groups: ``all``, then classes, then combinations of classes."""
    return (0 if name == ALL else 2 if "+" in name else 1), name


def _parent(name: str, groups: dict[str, GroupCalibration]) -> GroupCalibration | None:
    """Return the smallest fitted group that contains a group; ``None`` for ``all``."""
    if name == ALL:
        return None
    familiarities: list[Familiarity] = name.split("+")  # type: ignore[assignment]
    _, *larger = group_names(familiarities)
    return next((groups[other] for other in larger if other in groups and other != name), None)
