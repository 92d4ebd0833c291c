"""Configuration of a screen: the settings and defaults of the command line and of Python."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from moltc_vllm.utils.coverage import DEFAULT_COVERAGE, check_coverage

if TYPE_CHECKING:
    from moltc_vllm.tasks import Task

_LISTED_LABELS = 10


class PairingMode(enum.StrEnum):
    """Rule that pairs the molecules of the input tables."""

    product = "product"
    zip = "zip"
    triangle = "triangle"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"how must be one of {', '.join(cls)}, not {value!r}")


class ProcessingOrder(enum.StrEnum):
    """Order in which the pairs are processed."""

    given = "given"
    random = "random"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"order must be one of {', '.join(cls)}, not {value!r}")


class RequiredFamiliarity(enum.StrEnum):
    """Least familiarity of the molecules that a ranked row needs, from strict to lenient."""

    known = "known"
    similar = "similar"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"familiarity must be one of {', '.join(cls)}, not {value!r}")


# The class has no slots, so that each default can be read from it, e.g. `ScreenConfig.part_rows`:
# `moltc screen` and `moltc_vllm.screen` take their defaults from here.
@dataclass(frozen=True)
class ScreenConfig:
    """Settings of a screen.

    Attributes:
        task: Name of the task to answer for each pair.
        out: Output folder.
        pairs: Table with both molecules of a pair in each row.
        left: Table of first molecules, if ``pairs`` is not given.
        right: Table of second molecules; not for the pairing mode ``triangle``.
        columns: Names of the molecule columns, in ``pairs`` or in ``left`` and ``right``; default:
            found by name, see `moltc_vllm.screening.inputs.find_molecule_column`.
        how: Pairing mode: all molecules of ``left`` with all of ``right``, row by row, or every two
            molecules of ``left``.
        question: Question of the user, for a task that takes one.
        order: Processing order; ``random`` makes a partial run an unbiased sample.
        seed: Seed of the random order.
        limit: Largest number of pairs, the first ones in processing order; default: all.
        text: Whether to keep the text that the model generated.
        coverage: Coverage of the prediction intervals ``low`` to ``high``.
        part_rows: Number of pairs per part; a kill loses at most the unfinished parts.
        block: Number of second molecules that are processed together and stay encoded meanwhile.
        retry_errors: Whether to resubmit the pairs whose status is ``error``.
    """

    task: str
    out: Path
    pairs: Path | None = None
    left: Path | None = None
    right: Path | None = None
    columns: tuple[str | None, str | None] = (None, None)
    how: PairingMode = PairingMode.product
    question: str | None = None
    order: ProcessingOrder = ProcessingOrder.given
    seed: int = 0
    limit: int | None = None
    text: bool = False
    coverage: float = DEFAULT_COVERAGE
    part_rows: int = 5_000
    block: int = 1_024
    retry_errors: bool = False

    def __post_init__(self) -> None:
        """Validate the settings that need no file.

        Raises:
            ValueError: If ``how`` or ``order`` is unknown, or a number is out of range.
        """
        check_coverage(self.coverage)
        object.__setattr__(self, "how", PairingMode(self.how))
        object.__setattr__(self, "order", ProcessingOrder(self.order))
        for name in ("limit", "part_rows", "block"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")

    def files(self) -> dict[str, Path]:
        """Return the input files by their role: ``pairs``, or ``left`` and ``right``.

        Raises:
            ValueError: If files are missing, or their combination is not allowed.
        """
        roles = {"pairs": self.pairs, "left": self.left, "right": self.right}
        files = {role: path for role, path in roles.items() if path is not None}
        if self.pairs is not None and self.right is not None:
            raise ValueError("a file of pairs cannot be combined with a right file")
        left_files = ["left"] if self.how is PairingMode.triangle else ["left", "right"]
        if list(files) not in (["pairs"], left_files):
            raise ValueError(
                "a screen needs a file of pairs, or a left and a right file, or a left file alone "
                "with the pairing mode triangle"
            )
        return files


@dataclass(frozen=True)
class Ranking:
    """Order of the best rows, which are written to ``top.csv`` and drawn in the report.

    Numbers are ranked by value, labels by the confidence in `label`, lists and texts by their
    confidence.

    Attributes:
        top_k: Number of rows to keep.
        smallest: Whether small values are best.
        threshold: Limit that a kept row's value (or confidence) must reach; default: no limit.
        label: Label to rank by. Default: the positive label of a binary task, otherwise each row's
            predicted label.
        familiarity: Familiarity that a kept row needs: ``known``, or ``similar`` for both known and
            similar molecules; default: any.
    """

    top_k: int = 100
    smallest: bool = False
    threshold: float | None = None
    label: str | None = None
    familiarity: RequiredFamiliarity | None = None

    @property
    def allowed_familiarity(self) -> tuple[str, ...]:
        """Values of the column ``familiarity`` that a kept row may have; empty for any."""
        allowed = list(RequiredFamiliarity)
        if self.familiarity is None:
            return ()
        return tuple(allowed[: allowed.index(RequiredFamiliarity(self.familiarity)) + 1])

    def check(self, task: Task) -> None:
        """Check that the ranking makes sense for a task.

        Raises:
            ValueError: If `smallest` or `label` does not apply to the task's answers.
        """
        # The command line imports this module before it knows whether it needs any task.
        from moltc_vllm.tasks import Choice, Number

        if self.smallest and not isinstance(task.kind, Number):
            raise ValueError(f"task {task.name!r} does not answer with numbers: drop --smallest")
        if self.label is None:
            return
        labels = [label.name for label in task.kind.labels] if isinstance(task.kind, Choice) else []
        if not labels:
            raise ValueError(f"task {task.name!r} has no labels: drop --label")
        if self.label not in labels:
            listed = ", ".join(labels[:_LISTED_LABELS])
            more = ", ..." if len(labels) > _LISTED_LABELS else ""
            raise ValueError(
                f"task {task.name!r} has no label {self.label!r}; its labels are {listed}{more}"
            )
