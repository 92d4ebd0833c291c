"""Answer kinds other than numbers: a class, a list of terms, free text.

Every kind writes the text a model is trained on, parses it, and provides a grammar where the set
of valid texts is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moltc_vllm.tasks.answer import ParsedFields, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob, joint_probability, mean_probability
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.number import Number


@dataclass(frozen=True, slots=True)
class Label:
    """Class of a classification task.

    Attributes:
        id: Number of the class in the data set.
        name: Short name for display.
        text: Text of the answer.
    """

    id: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Classification: the answer is the sentence of one label."""

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        for field in ("id", "name", "text"):
            if len({getattr(label, field) for label in self.labels}) < len(self.labels):
                raise ValueError(f"two labels have the same {field}")

    def write(self, label_id: int) -> str:
        """Return the answer text of a label.

        Raises:
            ValueError: If ``label_id`` is unknown.
        """
        for label in self.labels:
            if label.id == label_id:
                return label.text
        known = ", ".join(str(label.id) for label in self.labels)
        raise ValueError(f"unknown label {label_id}; known labels: {known}")

    def parse(self, text: str) -> ParsedFields:
        """Return the label with this text, ignoring case and whitespace.

        The whole text must match: "do not exhibit" contains "exhibit".

        Raises:
            UnparsedError: If no label matches.
        """
        for label in self.labels:
            if _normalized(label.text) == _normalized(text):
                return ParsedFields(label=label.name, label_id=label.id)
        raise UnparsedError(f"matches none of the {len(self.labels)} possible answers")

    def grammar(self) -> Grammar:
        """Return a grammar of the labels' texts."""
        return Grammar("choice", tuple(label.text for label in self.labels))

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Return the probability of the label: the joint probability of its tokens."""
        return joint_probability(tokens)

    def examples(self) -> Iterable[str]:
        """Return the labels' texts."""
        return (label.text for label in self.labels)


@dataclass(frozen=True, slots=True)
class Terms:
    """List of terms: a prefix, the terms, and a full stop.

    A text without the full stop was truncated, so its last term is discarded.
    """

    prefix: str
    separator: str = ", "

    def write(self, terms: Iterable[str]) -> str:
        """Return the answer text for a list of terms.

        Raises:
            ValueError: If the list is empty or a term could not be parsed back.
        """
        clean = tuple(" ".join(term.split()) for term in terms)
        if not clean:
            raise ValueError("a list of terms needs at least one term")
        for term in clean:
            if not term or self._delimiter in term or term.endswith("."):
                raise ValueError(
                    f"term {term!r} is empty, contains {self._delimiter!r} or ends in '.'"
                )
        return f"{self.prefix}{self.separator.join(clean)}."

    def parse(self, text: str) -> ParsedFields:
        """Return the distinct terms in the order of the text.

        Raises:
            UnparsedError: If the prefix is missing or no complete term follows it.
        """
        clean, prefix = " ".join(text.split()), self.prefix.strip()
        if not clean.lower().startswith(prefix.lower()):
            raise UnparsedError(f"does not start with {prefix!r}")
        body = clean[len(prefix) :].strip()
        parts = body.removesuffix(".").split(self._delimiter)
        complete = parts if body.endswith(".") else parts[:-1]
        terms = tuple(dict.fromkeys(part.strip() for part in complete if part.strip()))
        if not terms:
            raise UnparsedError("contains no complete term")
        return ParsedFields(items=terms)

    def grammar(self) -> None:
        """Return None: every text is valid."""

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Return the geometric mean of the tokens' probabilities."""
        return mean_probability(tokens)

    def examples(self) -> Iterable[str]:
        """Return one answer text."""
        return (self.write(("nausea", "headache", "low blood pressure")),)

    @property
    def _delimiter(self) -> str:
        return self.separator.strip()


@dataclass(frozen=True, slots=True)
class Text:
    """Free text."""

    def write(self, text: str) -> str:
        """Return the text without surrounding whitespace.

        Raises:
            ValueError: If the text is empty.
        """
        if not text.strip():
            raise ValueError("the text is empty")
        return text.strip()

    def parse(self, text: str) -> ParsedFields:
        """Accept any text; it has no fields.

        Raises:
            UnparsedError: If the text is empty.
        """
        if not text.strip():
            raise UnparsedError("the text is empty")
        return ParsedFields()

    def grammar(self) -> None:
        """Return None: every text is valid."""

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Return the geometric mean of the tokens' probabilities."""
        return mean_probability(tokens)

    def examples(self) -> Iterable[str]:
        """Return no texts, because free text has no fixed form."""
        return ()


AnswerKind = Choice | Number | Terms | Text


def _normalized(text: str) -> str:
    return " ".join(text.split()).casefold()
