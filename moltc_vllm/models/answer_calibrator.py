"""Familiarity, calibrated confidence and prediction interval of answers of any engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem import MoleculeError, canonical_key
from moltc_vllm.models.answer_parsing import RawAnswer
from moltc_vllm.models.calibration import Calibration, GroupCalibration, load_calibration
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.familiarity import FamiliarityIndex, least_familiar, load_familiarity
from moltc_vllm.models.interval_tokens import NUM_CANDIDATES
from moltc_vllm.models.prompt import add_notes_fn, encoder_key_fn, molecule_limits
from moltc_vllm.tasks import TASKS, Answer, Choice, Number, Task
from moltc_vllm.tasks.answer import Familiarity
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

if TYPE_CHECKING:
    from moltc_vllm.models.interval_summary import IntervalSummary


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
        calibrator = cls(config, load_calibration(folder), load_familiarity(folder))
        calibrator._warm_up()
        return calibrator

    def _warm_up(self) -> None:
        """Compile the functions of the first answer, so that no request waits for them."""
        if self.calibration is not None:
            for task in TASKS.values():
                if self._is_calibrated(task) and isinstance(task.kind, Number):
                    _summarize(task.kind, np.zeros(len(task.kind.intervals())))
        if self.index is not None and self.index.tasks:
            self.index.similarity(self.index.tasks[0], "C")

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
            raw: Generated answer, not calibrated yet.
            molecules: SMILES in the order of the task's roles.
            coverage: Coverage of the prediction interval.
        """
        answer = task.with_direction(raw.answer, molecules)
        answer = self._add_notes(task, answer, molecules)
        if answer.status != "ok" or (self.index is None and self.calibration is None):
            return answer
        familiarities = self.familiarities(task, molecules)
        group = self._find_group(task, familiarities)
        update = {} if group is None else _calibrated_fields(task, raw, group, coverage)
        if familiarities:
            update["familiarity"] = least_familiar(familiarities)
        return answer.model_copy(update=update) if update else answer

    @staticmethod
    def apply(task: Task, raw: RawAnswer, group: GroupCalibration, coverage: float) -> Answer:
        """Return a successful answer with the confidence and interval of a group's parameters.

        Args:
            task: Task that was answered.
            raw: Generated answer, not calibrated yet.
            group: Parameters of the group that the pair belongs to.
            coverage: Coverage of the prediction interval.
        """
        return raw.answer.model_copy(update=_calibrated_fields(task, raw, group, coverage))

    def _is_calibrated(self, task: Task) -> bool:
        return self.calibration is not None and task.name in self.calibration.tasks

    def _find_group(
        self, task: Task, familiarities: Sequence[Familiarity]
    ) -> GroupCalibration | None:
        if self.calibration is None or task.name not in self.calibration.tasks:
            return None
        return self.calibration.tasks[task.name].find(familiarities, symmetric=task.symmetric)


def raw_probability(raw: RawAnswer) -> float | None:
    """Return the model's probability of the answer's label or likeliest interval.

    With a distribution it is relative to all intervals, so that it does not depend on whether the
    engine restricted the tokens by a grammar.
    """
    logs = raw.log_probabilities
    if logs is None:
        return raw.answer.confidence
    return float(1 / np.exp(logs - logs.max()).sum())


def _calibrated_fields(
    task: Task, raw: RawAnswer, group: GroupCalibration, coverage: float
) -> dict[str, Any]:
    """Return the fields of an answer that a group's parameters determine."""
    kind, logs = task.kind, raw.log_probabilities
    if logs is None or not isinstance(kind, Number):
        if raw.answer.confidence is None:
            return {}
        position = _label_position(task, raw.answer)
        return {"confidence": group.confidence(raw.answer.confidence, *position)}
    summary = _summarize(kind, logs)
    fields: dict[str, Any] = {"confidence": group.confidence(summary.likeliest)}
    if group.scores:
        score = group.score(coverage)
        fields |= {
            "value": kind.round(summary.value),
            "std": round(group.std_scale * summary.deviation, kind.decimals + 1),
            "low": kind.round(kind.value_at(summary.position - score * summary.lower)),
            "high": kind.round(kind.value_at(summary.position + score * summary.upper)),
        }
    return fields


def _summarize(kind: Number, logs: npt.NDArray[np.float64]) -> IntervalSummary:
    from moltc_vllm.models.interval_summary import summarize_intervals  # imports numba

    return summarize_intervals(kind, logs)


def _label_position(task: Task, answer: Answer) -> tuple[int | None, int]:
    """Return the index of the answer's label and the number of labels; no index for others."""
    if not isinstance(task.kind, Choice):
        return None, 0
    labels = task.kind.labels
    positions = (index for index, label in enumerate(labels) if label.id == answer.label_id)
    return next(positions, None), len(labels)
