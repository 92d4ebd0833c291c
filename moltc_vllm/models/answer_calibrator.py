"""Familiarity, calibrated confidence and prediction interval of answers of any engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem import MoleculeError, canonical_key
from moltc_vllm.models.answer_parsing import RawAnswer
from moltc_vllm.models.calibration import Calibration, GroupCalibration, load_calibration
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.familiarity import FamiliarityIndex, least_familiar, load_familiarity
from moltc_vllm.models.interval_tokens import NUM_CANDIDATES
from moltc_vllm.models.prompt import add_notes_fn, encoder_key_fn, molecule_limits
from moltc_vllm.tasks import Answer, Choice, Number, Task
from moltc_vllm.tasks.answer import Familiarity
from moltc_vllm.tasks.interval_distribution import (
    half_widths,
    mean_positions,
    standard_deviations,
)
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

_CACHE_SIZE = 1 << 10


class AnswerCalibrator:
    """Completion of raw answers with what a checkpoint folder knows about its own errors.

    The value, the label and the likeliest interval of an answer stay as they are.

    Args:
        config: Configuration of the checkpoint.
        calibration: Parameters of confidence and intervals; ``None`` changes neither.
        index: Labelled training molecules; ``None`` gives no familiarity.
    """

    def __init__(
        self,
        config: MoltcConfig,
        calibration: Calibration | None = None,
        index: FamiliarityIndex | None = None,
    ) -> None:
        self.calibration = calibration
        self.index = index
        self._key = (
            partial(canonical_key, limits=molecule_limits(config))
            if config.style.as_written
            else encoder_key_fn(config)
        )
        self._add_notes = add_notes_fn(config)

    @classmethod
    def load(cls, folder: Path, config: MoltcConfig) -> AnswerCalibrator:
        """Read the files of a checkpoint folder, if it has any.

        Raises:
            CheckpointError: If a file cannot be read.
        """
        return cls(config, load_calibration(folder), load_familiarity(folder))

    def num_candidates(self, task: Task) -> int:
        """Return the number of first tokens that an engine has to report for a numeric task."""
        if self._is_calibrated(task) and isinstance(task.kind, Number):
            return max(NUM_CANDIDATES, len(task.kind.intervals()))
        return NUM_CANDIDATES

    def familiarities(self, task: Task, molecules: Sequence[str]) -> tuple[Familiarity, ...]:
        """Return the familiarity of each molecule; empty if the checkpoint cannot tell.

        Args:
            task: Task that was answered.
            molecules: SMILES in the order of the task's roles.
        """
        index = self.index
        if index is None or task.name not in index.tasks:
            return ()
        try:
            return tuple(index.classify(task.name, self._key(smiles)) for smiles in molecules)
        except MoleculeError:
            return ()

    def complete(
        self,
        task: Task,
        raw: RawAnswer,
        molecules: Sequence[str],
        coverage: float = DEFAULT_COVERAGE,
    ) -> Answer:
        """Return the answer with direction, notes, familiarity, calibrated confidence and interval.

        Args:
            task: Task that was answered.
            raw: Answer as it was generated.
            molecules: SMILES in the order of the task's roles.
            coverage: Coverage of the prediction interval.
        """
        answer = task.with_direction(raw.answer, molecules)
        answer = self._add_notes(task, answer, molecules)
        if answer.status != "ok" or (self.index is None and self.calibration is None):
            return answer
        familiarities = self.familiarities(task, molecules)
        group = self._find_group(task, familiarities)
        if group is not None:
            answer = self.apply(task, raw._replace(answer=answer), group, coverage)
        if familiarities:
            answer = answer.model_copy(update={"familiarity": least_familiar(familiarities)})
        return answer

    @staticmethod
    def apply(task: Task, raw: RawAnswer, group: GroupCalibration, coverage: float) -> Answer:
        """Return a successful answer with the confidence and interval of a group's parameters.

        Args:
            task: Task that was answered.
            raw: Answer as it was generated.
            group: Parameters of the group that the pair belongs to.
            coverage: Coverage of the prediction interval.
        """
        update: dict[str, Any] = {}
        probability = raw_probability(raw)
        if probability is not None:
            update["confidence"] = group.confidence(probability, *_label_position(task, raw.answer))
        if raw.log_probabilities is not None and group.scores:
            score = _score(group, coverage)
            update |= _spread(task.kind, raw.log_probabilities, group.std_scale, score)
        return raw.answer.model_copy(update=update)

    def _is_calibrated(self, task: Task) -> bool:
        return self.calibration is not None and task.name in self.calibration.tasks

    def _find_group(
        self, task: Task, familiarities: Sequence[Familiarity]
    ) -> GroupCalibration | None:
        if self.calibration is None or task.name not in self.calibration.tasks:
            return None
        return self.calibration.tasks[task.name].find(familiarities, symmetric=task.symmetric)


@lru_cache(maxsize=_CACHE_SIZE)
def _score(group: GroupCalibration, coverage: float) -> float:
    return group.score(coverage)


def raw_probability(raw: RawAnswer) -> float | None:
    """Return the model's probability of the answer's label or likeliest interval.

    With a distribution it is relative to all intervals, so that it does not depend on whether the
    engine restricted the tokens by a grammar.
    """
    logs = raw.log_probabilities
    if logs is None:
        return raw.answer.confidence
    return float(1 / np.exp(logs - logs.max()).sum())


def _label_position(task: Task, answer: Answer) -> tuple[int | None, int]:
    """Return the index of the answer's label and the number of labels; no index for others."""
    if not isinstance(task.kind, Choice):
        return None, 0
    ids = [label.id for label in task.kind.labels]
    return (None if answer.label_id is None else ids.index(answer.label_id)), len(ids)


def _spread(
    kind: Any, log_probabilities: npt.NDArray[np.float64], std_scale: float, score: float
) -> dict[str, float]:
    """Return the value of a distribution, its deviation and its prediction interval."""
    assert isinstance(kind, Number)
    weights = np.exp(log_probabilities - log_probabilities.max())
    probabilities = (weights / weights.sum())[None, :]
    positions = mean_positions(probabilities)
    lower, upper = half_widths(probabilities, positions)
    position = float(positions[0])
    value = kind.value_at(position)
    deviation = float(standard_deviations(kind, probabilities, np.array([value]))[0])
    return {
        "value": kind.round(value),
        "std": round(std_scale * deviation, kind.decimals + 1),
        "low": kind.round(kind.value_at(position - score * float(lower[0]))),
        "high": kind.round(kind.value_at(position + score * float(upper[0]))),
    }
