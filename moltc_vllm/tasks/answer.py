"""The typed answer of a pair: a value, a label or a text, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Status = Literal["ok", "bad_molecule", "unparsed", "error"]
FailedStatus = Literal["bad_molecule", "unparsed", "error"]

Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]


class UnparsedError(ValueError):
    """A generated text is not an answer of its kind; the message says why."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What an answer kind read from a text."""

    value: float | None = None
    stated: float | None = None
    label: str | None = None
    label_id: int | None = None
    items: tuple[str, ...] | None = None
    unit: str | None = None
    interval: tuple[float, float] | None = None


class Answer(BaseModel):
    """One answer, whoever gave it; never a bare string, never a silent ``None``.

    Attributes:
        task: Name of the task.
        status: ``ok``, or what went wrong; then ``error`` says it and there is nothing else but
            perhaps the ``text``.
        value: Number in ``unit``: the mean of what the model thinks possible, where each interval
            is one token and the engine tells how likely the first ones are; else as ``stated``.
        stated: Number that the model wrote.
        label: Short name of a class; ``label_id`` is its number in the data.
        items: Terms of a list.
        interval: The interval that the model named before its value; the value may lie outside.
        confidence: Probability that the model gave its answer; the answer kind says of which part.
        text: What the model wrote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(min_length=1)
    status: Status
    value: FiniteFloat | None = None
    stated: FiniteFloat | None = None
    label: str | None = None
    label_id: int | None = None
    items: tuple[str, ...] | None = None
    unit: str | None = None
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    confidence: Probability | None = None
    text: str | None = None
    error: str | None = None

    @property
    def result(self) -> str:
        """The answer in a few words, for people; what went wrong, if there is none."""
        if self.status != "ok":
            return f"{self.status}: {self.error}"
        if self.value is not None:
            return f"{self.value:g} {self.unit or ''}".rstrip()
        if self.items is not None:
            return "; ".join(self.items)
        return self.label or self.text or ""

    @model_validator(mode="after")
    def _is_honest(self) -> Self:
        findings = (self.value, self.stated, self.label, self.label_id, self.items, self.interval)
        if self.status == "ok":
            if self.error is not None:
                raise ValueError("an answer that is ok has no error")
            if all(finding is None for finding in (*findings, self.text)):
                raise ValueError("an answer that is ok says something")
        else:
            if not self.error:
                raise ValueError(f"an answer that is {self.status} has an error")
            if any(found is not None for found in (*findings, self.unit, self.confidence)):
                raise ValueError(f"an answer that is {self.status} has nothing but its text")
        if self.stated is not None and self.value is None:
            raise ValueError("a stated number comes with a value")
        if (self.label is None) != (self.label_id is None):
            raise ValueError("label and label_id come together")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"the interval {self.interval} runs backwards")
        return self
