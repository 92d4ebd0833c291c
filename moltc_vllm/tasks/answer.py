"""The typed answer to one question: a value, a label or a text, or the reason for a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, computed_field, model_validator

from moltc_vllm.utils.deprecation import warn_renamed

Status = Literal["ok", "bad_molecule", "unparsed", "error"]
FailedStatus = Literal["bad_molecule", "unparsed", "error"]

Familiarity = Literal["known", "similar", "unlike"]
"""Nearness of molecules to the labelled training molecules of the task, see `Answer`."""

Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]

_RENAMED = {"stated": "generated_value", "interval": "likeliest_interval"}
"""Old names of fields in JSON, with the new ones."""


class UnparsedError(ValueError):
    """Generated text that is not an answer of the expected kind; the message says why."""


@dataclass(frozen=True, slots=True)
class ParsedFields:
    """Fields of an `Answer` that an answer kind parses from a text.

    Attributes:
        interval: Interval as written in the text; see `Answer` for the other fields.
    """

    value: float | None = None
    generated_value: float | None = None
    label: str | None = None
    label_id: int | None = None
    items: tuple[str, ...] | None = None
    unit: str | None = None
    interval: tuple[float, float] | None = None


class Answer(BaseModel):
    """Typed answer of any engine, with an explicit status.

    In JSON, ``generated_value`` and ``likeliest_interval`` also appear under their old names
    ``stated`` and ``interval`` until version 0.3; JSON of version 0.1, which has only the old
    names, can be read.

    Attributes:
        task: Name of the task.
        status: ``ok``, or the kind of failure. A failed answer has an ``error`` and no other
            field, except perhaps the ``text``.
        value: Number in ``unit``. Where each interval is one token and the engine returns
            token probabilities, the mean over the intervals; otherwise equal to
            ``generated_value``.
        std: Expected error of the value: the calibrated standard deviation, in ``unit``.
        low: Lower end of the prediction interval, which contains ``value`` and is expected to
            contain the measured value in 80 % of the answers, or with the requested coverage.
        high: Upper end of the prediction interval.
        familiarity: Nearness of the molecules to those with labels of this task in training:
            ``known`` (all are among them), ``similar`` or ``unlike``; the least familiar molecule
            decides.
        generated_value: Number written in the generated text.
        label: Short name of the predicted class.
        label_id: Number of the predicted class in the data set.
        subject: SMILES of the molecule that acts on the other one, e.g. that increases its
            activity; only for labels with a direction.
        object: SMILES of the molecule that is acted on.
        items: Terms of a list.
        unit: Unit of the numbers; None for a ratio.
        likeliest_interval: Most probable interval of the model's scale, within the bounds of the
            quantity; the value may lie outside it.
        confidence: Probability of the decisive part of the answer, in [0, 1]: of the label, or of
            the likeliest interval; see the task's answer kind.
        notes: What is unusual about the molecules or was changed by their standardization, e.g.
            ``solute: charged``; see `moltc_vllm.chem.molecule_notes`.
        text: Generated text.
        error: Reason for a failure.
    """

    # `serialize_by_alias` concerns `_stated` and `_interval` alone: no other field has an alias.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    task: str = Field(min_length=1)
    status: Status
    value: FiniteFloat | None = None
    generated_value: FiniteFloat | None = None
    label: str | None = None
    label_id: int | None = None
    subject: str | None = None
    object: str | None = None
    items: tuple[str, ...] | None = None
    unit: str | None = None
    likeliest_interval: tuple[FiniteFloat, FiniteFloat] | None = None
    std: Annotated[FiniteFloat, Field(ge=0)] | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    confidence: Probability | None = None
    familiarity: Familiarity | None = None
    notes: tuple[str, ...] = ()
    text: str | None = None
    error: str | None = None

    @property
    def stated(self) -> float | None:
        """Deprecated name of `generated_value`."""
        warn_renamed("Answer.stated", "Answer.generated_value")
        return self.generated_value

    # Serialization reads this property instead of `stated`, which would warn on every dump.
    @computed_field(  # type: ignore[prop-decorator]
        alias="stated",
        description="Deprecated name of `generated_value`.",
        json_schema_extra={"deprecated": True},
        repr=False,
    )
    @property
    def _stated(self) -> float | None:
        return self.generated_value

    @property
    def interval(self) -> tuple[float, float] | None:
        """Deprecated name of `likeliest_interval`."""
        warn_renamed("Answer.interval", "Answer.likeliest_interval")
        return self.likeliest_interval

    @computed_field(  # type: ignore[prop-decorator]
        alias="interval",
        description="Deprecated name of `likeliest_interval`.",
        json_schema_extra={"deprecated": True},
        repr=False,
    )
    @property
    def _interval(self) -> tuple[float, float] | None:
        return self.likeliest_interval

    @property
    def result(self) -> str:
        """Short form of the answer for display, or the error of a failure."""
        if self.status != "ok":
            return f"{self.status}: {self.error}"
        if self.value is not None:
            return f"{self.value:g} {self.unit or ''}".rstrip()
        if self.items is not None:
            return "; ".join(self.items)
        return self.label or self.text or ""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, data: Any) -> Any:
        """Read fields under their old names; a new name takes precedence if both are given."""
        if not isinstance(data, dict) or _RENAMED.keys().isdisjoint(data):
            return data
        fields = dict(data)
        for old, new in _RENAMED.items():
            if old in fields:
                value = fields.pop(old)
                fields.setdefault(new, value)
        return fields

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        result_fields = (
            *(self.value, self.generated_value, self.label, self.label_id),
            *(self.items, self.likeliest_interval),
        )
        if self.status == "ok":
            if self.error is not None:
                raise ValueError("an answer with status ok must not have an error")
            if all(field is None for field in (*result_fields, self.text)):
                raise ValueError("an answer with status ok needs a value, a label or a text")
        else:
            if not self.error:
                raise ValueError(f"an answer with status {self.status} needs an error")
            other_fields = (self.subject, self.object, self.unit, self.confidence, self.familiarity)
            if any(field is not None for field in (*result_fields, *other_fields)):
                raise ValueError(
                    f"an answer with status {self.status} must have no fields but text and error"
                )
        if self.generated_value is not None and self.value is None:
            raise ValueError("generated_value needs a value")
        if (self.label is None) != (self.label_id is None):
            raise ValueError("label and label_id must be given together")
        if (self.subject is None) != (self.object is None):
            raise ValueError("subject and object must be given together")
        if self.subject is not None and self.label is None:
            raise ValueError("subject and object need a label")
        if self.likeliest_interval is not None:
            _check_ascending("likeliest_interval", *self.likeliest_interval)
        self._check_spread()
        return self

    def _check_spread(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high must be given together")
        if self.value is None and not (self.std is None and self.low is None):
            raise ValueError("std, low and high need a value")
        if self.low is not None and self.high is not None and self.value is not None:
            _check_ascending("low and high", self.low, self.high)
            if not self.low <= self.value <= self.high:
                raise ValueError(f"value {self.value} is outside {self.low} to {self.high}")


def _check_ascending(name: str, low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"{name} ({low}, {high}): the lower end is above the upper end")
