"""The typed answer to one question: a value, a label or a text, or the reason for a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, computed_field, model_validator

from moltc_vllm.utils.deprecation import warn_renamed

Status = Literal["ok", "bad_molecule", "unparsed", "error"]
FailedStatus = Literal["bad_molecule", "unparsed", "error"]

Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]


class UnparsedError(ValueError):
    """Generated text that is not an answer of the expected kind; the message says why."""


@dataclass(frozen=True, slots=True)
class ParsedFields:
    """Fields of an `Answer` that an answer kind parses from a text."""

    value: float | None = None
    generated_value: float | None = None
    label: str | None = None
    label_id: int | None = None
    items: tuple[str, ...] | None = None
    unit: str | None = None
    interval: tuple[float, float] | None = None


class Answer(BaseModel):
    """Typed answer of any engine, with an explicit status.

    In JSON, ``generated_value`` also appears under its old name ``stated`` until version 0.3;
    JSON of version 0.1, which has ``stated`` alone, can be read.

    Attributes:
        task: Name of the task.
        status: ``ok``, or the kind of failure. A failed answer has an ``error`` and no other
            field, except perhaps the ``text``.
        value: Number in ``unit``. Where each interval is one token and the engine returns
            token probabilities, the mean over the likeliest intervals; otherwise equal to
            ``generated_value``.
        generated_value: Number written in the generated text.
        label: Short name of the predicted class.
        label_id: Number of the predicted class in the data set.
        items: Terms of a list.
        unit: Unit of ``value`` and ``interval``; None for a ratio.
        interval: Interval written before the value; the value may lie outside it.
        confidence: Probability of the decisive part of the answer, in [0, 1]; see the task's
            answer kind.
        text: Generated text.
        error: Reason for a failure.
    """

    # `serialize_by_alias` concerns `_stated` alone: no other field has an alias.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    task: str = Field(min_length=1)
    status: Status
    value: FiniteFloat | None = None
    generated_value: FiniteFloat | None = None
    label: str | None = None
    label_id: int | None = None
    items: tuple[str, ...] | None = None
    unit: str | None = None
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    confidence: Probability | None = None
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
    def _accept_stated(cls, data: Any) -> Any:
        """Read ``stated`` as ``generated_value``, which takes precedence if both are given."""
        if not isinstance(data, dict) or "stated" not in data:
            return data
        fields = dict(data)
        stated = fields.pop("stated")
        fields.setdefault("generated_value", stated)
        return fields

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        result_fields = (
            *(self.value, self.generated_value, self.label, self.label_id),
            *(self.items, self.interval),
        )
        if self.status == "ok":
            if self.error is not None:
                raise ValueError("an answer with status ok must not have an error")
            if all(field is None for field in (*result_fields, self.text)):
                raise ValueError("an answer with status ok needs a value, a label or a text")
        else:
            if not self.error:
                raise ValueError(f"an answer with status {self.status} needs an error")
            if any(field is not None for field in (*result_fields, self.unit, self.confidence)):
                raise ValueError(
                    f"an answer with status {self.status} must have no fields but text and error"
                )
        if self.generated_value is not None and self.value is None:
            raise ValueError("generated_value needs a value")
        if (self.label is None) != (self.label_id is None):
            raise ValueError("label and label_id must be given together")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"interval {self.interval}: the lower end is above the upper end")
        return self
