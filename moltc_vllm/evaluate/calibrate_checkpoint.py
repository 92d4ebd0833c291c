"""Calibrate a checkpoint on staged pairs, and measure the calibration on pairs it did not use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moltc_vllm._version import __version__
from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.dataset import Row
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.evaluate.calibration import calibrate as calibration_metric
from moltc_vllm.evaluate.fit_calibration import MeasuredPair, fit_task, is_hit
from moltc_vllm.evaluate.staged_pairs import (
    StagedPairs,
    UnseenSettings,
    fold_of,
    read_staged_pairs,
    trained_datasets,
)
from moltc_vllm.models.answer_calibrator import AnswerCalibrator, raw_probability
from moltc_vllm.models.calibration import Calibration, TaskCalibration
from moltc_vllm.models.checkpoint import load_config, read_card
from moltc_vllm.models.familiarity import FamiliarityIndex, load_familiarity
from moltc_vllm.models.prompt import encoder_key_fn
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import Answer, Choice, Number, Task, get_task, resolve_task
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

_BATCH_SIZE = 256

ProgressFunction = Callable[[str, int, int], None]
"""Function that receives a data set, the number of its answered pairs and of all its pairs."""


@dataclass(frozen=True, slots=True)
class PartResult:
    """Quality of confidence and intervals on one part of a data set.

    Every pair was answered with parameters that were fitted on the other half of the pairs.

    Attributes:
        dataset: Name of the data set.
        part: ``valid``, ``one_unseen`` or ``both_unseen``.
        rows: Number of answered pairs.
        raw_error: Expected calibration error of the model's own probabilities.
        error: The same after calibration.
        confidence: Mean confidence after calibration.
        coverage: Fraction of measured values in the 80 % prediction interval; ``None`` for labels.
        width: Mean width of these intervals; ``None`` for labels.
    """

    dataset: str
    part: str
    rows: int
    raw_error: float
    error: float
    confidence: float
    coverage: float | None
    width: float | None


@dataclass(frozen=True)
class CheckpointCalibration:
    """Result of `calibrate_checkpoint`.

    Attributes:
        calibration: Parameters fitted on all pairs.
        index: Labelled training molecules that the familiarity of the pairs was computed with.
        results: Quality by data set and part, by cross-validation with two halves.
    """

    calibration: Calibration
    index: FamiliarityIndex
    results: tuple[PartResult, ...]


@dataclass(frozen=True, slots=True)
class _Measured:
    """A measured pair with its data set, its part and its half of the cross-validation."""

    dataset: str
    part: str
    fold: int
    pair: MeasuredPair


def calibrate_checkpoint(
    checkpoint: Path,
    data: Path,
    *,
    names: Sequence[str] | None = None,
    unseen: UnseenSettings | None = None,
    limit: int | None = None,
    progress: ProgressFunction = lambda name, done, total: None,
) -> CheckpointCalibration:
    """Answer held-out pairs with a checkpoint and fit its calibration to them.

    Args:
        checkpoint: Checkpoint folder. Its index of training molecules is used if it has one;
            otherwise one is built from the training rows.
        data: Folder of the data files.
        names: Names of the data sets; default: those of measured pairs in the checkpoint's card.
        unseen: Molecules that the checkpoint was not trained on; default: those in its card.
        limit: Largest number of pairs of each data set and part; default: all.
        progress: Function that receives the progress.

    Raises:
        CheckpointError: If the checkpoint is incomplete.
        DataError: If the data cannot be read.
        ValueError: If there is no data set to calibrate on.
    """
    card_names, card_unseen = trained_datasets(read_card(checkpoint))
    unseen = unseen or card_unseen
    config = load_config(checkpoint)
    tasks = _tasks_by_dataset(card_names if names is None else names, config.tasks)
    if not tasks:
        raise ValueError("no data set with labels or numbers that the model answers: name some")
    engine = TorchEngine(checkpoint, batch_size=_BATCH_SIZE)
    staged = read_staged_pairs(data, tasks, unseen, limit)
    key = encoder_key_fn(config)
    index = load_familiarity(checkpoint) or build_index(staged, tasks, key)
    calibrator = AnswerCalibrator(config, index=index)
    measured: dict[str, list[_Measured]] = {}
    for name, task in tasks.items():
        answered = _answer(engine, calibrator, task, name, staged[name], progress)
        measured.setdefault(task.name, []).extend(answered)
    fitted = {
        name: calibration
        for name, rows in measured.items()
        if (calibration := fit_task(get_task(name), [row.pair for row in rows])) is not None
    }
    results = [
        result
        for name, rows in measured.items()
        for result in _cross_validate(get_task(name), rows)
    ]
    fitted_on = _describe(checkpoint, tasks, unseen, limit, results)
    return CheckpointCalibration(
        Calibration(fitted_on=fitted_on, tasks=fitted), index, tuple(results)
    )


def build_index(
    staged: Mapping[str, StagedPairs], tasks: Mapping[str, Task], key: Callable[[str], str]
) -> FamiliarityIndex:
    """Build the index of the molecules in training rows.

    Args:
        staged: Pairs by data set.
        tasks: Task of each data set.
        key: Function from SMILES to the encoder's key.
    """
    molecules: dict[str, dict[str, None]] = {}
    for name, task in tasks.items():
        texts = dict.fromkeys(smiles for row in staged[name].train for smiles in row.molecules)
        molecules.setdefault(task.name, {}).update(dict.fromkeys(_keys(texts, key)))
    return FamiliarityIndex.build(molecules)


def _keys(texts: Iterable[str], key: Callable[[str], str]) -> Iterable[str]:
    for text in texts:
        try:
            yield key(text)
        except MoleculeError:
            continue


def _tasks_by_dataset(names: Iterable[str], answered: Sequence[str]) -> dict[str, Task]:
    """Return the task that the model is asked for each data set with labels or numbers."""
    tasks = {}
    for name in names:
        task = resolve_task(get_task(DATASETS[name].task), answered)
        if task.name in answered and isinstance(task.kind, Choice | Number):
            tasks[name] = task
    return tasks


def _answer(
    engine: TorchEngine,
    calibrator: AnswerCalibrator,
    task: Task,
    name: str,
    staged: StagedPairs,
    progress: ProgressFunction,
) -> list[_Measured]:
    rows = [(part, row) for part, part_rows in staged.parts.items() for row in part_rows]
    pairs = (Pair(index, row.molecules) for index, (_, row) in enumerate(rows))
    measured = []
    for done, (pair, raw) in enumerate(engine.submit_raw(task, pairs), start=1):
        part, row = rows[pair.row]
        if raw.answer.status == "ok":
            familiarities = calibrator.familiarities(task, row.molecules)
            target = float(row.target)  # type: ignore[arg-type]
            measured_pair = MeasuredPair(raw, target, familiarities)
            measured.append(_Measured(name, part, _fold(row, familiarities), measured_pair))
        progress(name, done, len(rows))
    return measured


def _fold(row: Row, familiarities: Sequence[str]) -> int:
    unknown = [
        smiles
        for smiles, familiarity in zip(row.molecules, familiarities, strict=False)
        if familiarity != "known"
    ]
    return fold_of(row, unknown)


def _cross_validate(task: Task, rows: Sequence[_Measured]) -> list[PartResult]:
    """Measure each half with the parameters of the other half."""
    calibrations = [
        fit_task(task, [row.pair for row in rows if row.fold != fold]) for fold in (0, 1)
    ]
    if None in calibrations:
        return []
    answers = [_calibrated(task, row, calibrations[row.fold]) for row in rows]
    results = []
    for dataset, part in dict.fromkeys((row.dataset, row.part) for row in rows):
        chosen = [
            (row, answer)
            for row, answer in zip(rows, answers, strict=True)
            if (row.dataset, row.part) == (dataset, part)
        ]
        results.append(_part_result(task, dataset, part, chosen))
    return results


def _calibrated(task: Task, row: _Measured, calibration: TaskCalibration | None) -> Answer:
    assert calibration is not None
    group = calibration.find(row.pair.familiarities, symmetric=task.symmetric)
    return AnswerCalibrator.apply(task, row.pair.raw, group, DEFAULT_COVERAGE)


def _part_result(
    task: Task, dataset: str, part: str, rows: Sequence[tuple[_Measured, Answer]]
) -> PartResult:
    hits = np.array([is_hit(task, row.pair.raw, row.pair.target) for row, _ in rows])
    raw = np.array([raw_probability(row.pair.raw) for row, _ in rows], dtype=np.float64)
    confidence = np.array([answer.confidence for _, answer in rows], dtype=np.float64)
    low, high, target = (
        np.array(column, dtype=np.float64)
        for column in zip(
            *((answer.low, answer.high, row.pair.target) for row, answer in rows), strict=True
        )
    )
    has_ends = ~np.isnan(low)
    covered = (low <= target) & (target <= high)
    return PartResult(
        dataset,
        part,
        len(rows),
        _calibration_error(raw, hits),
        _calibration_error(confidence, hits),
        float(np.nanmean(confidence)),
        float(covered[has_ends].mean()) if has_ends.any() else None,
        float((high - low)[has_ends].mean()) if has_ends.any() else None,
    )


def _calibration_error(confidence: Any, hits: Any) -> float:
    error = calibration_metric(confidence, hits, ~np.isnan(confidence))[0].value
    return float("nan") if error is None else error


def _describe(
    checkpoint: Path,
    tasks: Mapping[str, Task],
    unseen: UnseenSettings | None,
    limit: int | None,
    results: Iterable[PartResult],
) -> dict[str, Any]:
    """Return what ``calibration.json`` tells about its origin, as JSON values."""
    return {
        "moltc_vllm": __version__,
        "model": checkpoint.resolve().name,
        "datasets": list(tasks),
        "unseen": None
        if unseen is None
        else {"fraction": unseen.fraction, "seed": unseen.seed, "by": unseen.by},
        "limit": limit,
        "cross_validation": [_rounded(result) for result in results],
    }


def _rounded(result: PartResult) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(result).items()
    }
