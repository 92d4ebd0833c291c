"""Calibration of a checkpoint's confidence and prediction intervals: ``calibration.json``.

The parameters of a task depend on the familiarity of the molecules. A group of pairs is named after
the familiarity of each molecule in the order of the roles, such as ``unlike+known``; the groups
``known``, ``similar`` and ``unlike`` hold all pairs whose least familiar molecule is of that class,
and ``all`` holds every pair. `moltc_vllm.evaluate.fit_calibration` fits the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.models.familiarity import least_familiar
from moltc_vllm.tasks.answer import Familiarity
from moltc_vllm.utils.atomic_files import new_file
from moltc_vllm.utils.errors import one_line
from moltc_vllm.utils.json_objects import read_json_object

CALIBRATION_FILE = "calibration.json"
ALL = "all"

_MIN_PROBABILITY = 1e-6
_ORDER = 1e-3  # share of the model's probability in a confidence no better than guessing

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]


class GroupCalibration(BaseModel):
    """Parameters of one group of pairs.

    The log-odds of a confidence become ``slope * log-odds + offset``. For a task with two labels,
    ``tilt`` is added for the second label and subtracted for the first one.

    Attributes:
        rows: Number of pairs that the parameters were fitted on.
        slope: Factor of the log-odds: the inverse of a temperature.
        offset: Summand of the log-odds.
        tilt: Summand that favors the second of two labels.
        std_scale: Factor of the standard deviation of numbers.
        scores: Quantiles of the conformity scores at evenly spaced levels from 0 to 1; empty for
            labels and for numbers without a distribution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Annotated[int, Field(ge=1)]
    slope: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    offset: FiniteFloat = 0.0
    tilt: FiniteFloat = 0.0
    std_scale: PositiveFloat = 1.0
    scores: tuple[FiniteFloat, ...] = ()

    @field_validator("scores")
    @classmethod
    def _check_scores(cls, scores: tuple[float, ...]) -> tuple[float, ...]:
        if len(scores) == 1 or any(a > b for a, b in pairwise(scores)):
            raise ValueError("scores must be at least two quantiles in ascending order")
        if scores and scores[0] < 0:
            raise ValueError("scores must not be negative")
        return scores

    def confidence(self, probability: float, label: int | None = None, labels: int = 0) -> float:
        """Return the calibrated confidence of a label or an interval.

        Args:
            probability: Probability that the model gives to it.
            label: Index of the label; ``None`` for an interval.
            labels: Number of labels of the task. The confidence of the chosen label is at least 1
                divided by it, plus a little that keeps the order of pairs.
        """
        clipped = min(max(probability, _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
        logit = self.slope * math.log(clipped / (1 - clipped)) + self.offset
        if labels == 2 and label is not None:
            logit += self.tilt if label == 1 else -self.tilt
        confidence = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
        if not labels:
            return confidence
        guess = 1 / labels
        return max(confidence, guess + _ORDER * max(probability - guess, 0.0))

    def score(self, coverage: float) -> float:
        """Return the conformity score below which a new pair is with a probability.

        Args:
            coverage: Probability, between 0 and 1. With few rows the largest score may not reach
                it; it is returned nevertheless.
        """
        # The rank of a new pair among the fitted ones adds one row.
        level = min(math.ceil((self.rows + 1) * coverage) / self.rows, 1.0)
        position = level * (len(self.scores) - 1)
        index = min(int(position), len(self.scores) - 2)
        lower, upper = self.scores[index : index + 2]
        return lower + (position - index) * (upper - lower)


class TaskCalibration(BaseModel):
    """Parameters of one task.

    Attributes:
        groups: Parameters by name of the group; ``all`` is always among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: dict[str, GroupCalibration]

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, groups: dict[str, GroupCalibration]) -> dict[str, GroupCalibration]:
        if ALL not in groups:
            raise ValueError(f"the group {ALL!r} is missing")
        return groups

    def find(
        self, familiarities: Sequence[Familiarity], *, symmetric: bool = False
    ) -> GroupCalibration:
        """Return the parameters of the smallest group that a pair belongs to.

        Args:
            familiarities: Familiarity of each molecule; empty if it is not known.
            symmetric: Whether the order of the molecules does not matter.
        """
        names = group_names(familiarities, symmetric=symmetric)
        return next(self.groups[name] for name in names if name in self.groups)


class Calibration(BaseModel):
    """Content of ``calibration.json``.

    Attributes:
        version: Version of the format.
        fitted_on: Description of the model and the rows that the parameters were fitted on.
        tasks: Parameters by task; others are not calibrated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    fitted_on: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, TaskCalibration] = Field(default_factory=dict)


def group_names(familiarities: Sequence[Familiarity], *, symmetric: bool = False) -> Iterator[str]:
    """Yield the names of the groups that a pair belongs to, from the smallest to the largest.

    Args:
        familiarities: Familiarity of each molecule; empty if it is not known.
        symmetric: Whether the order of the molecules does not matter.
    """
    if familiarities:
        yield "+".join(sorted(familiarities) if symmetric else familiarities)
        yield least_familiar(familiarities)
    yield ALL


def load_calibration(folder: Path) -> Calibration | None:
    """Read ``calibration.json`` of a checkpoint folder; ``None`` without the file.

    Raises:
        CheckpointError: If the file cannot be read or is not a calibration of this version.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        return Calibration.model_validate(read_json_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {where}: {first['msg']}") from error
    except ValueError as error:
        raise CheckpointError(one_line(error)) from error


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write ``calibration.json`` into a checkpoint folder."""
    with new_file(folder / CALIBRATION_FILE) as partial:
        partial.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
