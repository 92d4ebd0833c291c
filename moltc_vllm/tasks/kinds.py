"""The kinds of answers other than numbers: a class, a list of terms, free text.

Every kind writes the text that a model is trained on, reads it back, and says which texts there
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moltc_vllm.tasks.answer import Fields, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob, mean_probability, probability
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.number import Number


@dataclass(frozen=True, slots=True)
class Label:
    """One class: its number in the data, a short readable name, and the text of the answer."""

    id: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sentences."""

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        for what in ("id", "name", "text"):
            if len({getattr(label, what) for label in self.labels}) < len(self.labels):
                raise ValueError(f"two labels have the same {what}")

    def write(self, label_id: int) -> str:
        """The text of a label.

        Raises:
            ValueError: If there is no such label.
        """
        for label in self.labels:
            if label.id == label_id:
                return label.text
        known = ", ".join(str(label.id) for label in self.labels)
        raise ValueError(f"no label {label_id}; there are {known}")

    def parse(self, text: str) -> Fields:
        """The label whose text this is, apart from case and blanks.

        Never by substring: "do not exhibit" holds "exhibit".

        Raises:
            UnparsedError: If it is none of them.
        """
        for label in self.labels:
            if _plain(label.text) == _plain(text):
                return Fields(label=label.name, label_id=label.id)
        raise UnparsedError(f"none of the {len(self.labels)} possible answers")

    def grammar(self) -> Grammar:
        """The texts of the labels."""
        return Grammar("choice", tuple(label.text for label in self.labels))

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """The probability of the label: of all tokens of its sentence."""
        return probability(tokens)

    def examples(self) -> Iterable[str]:
        """The texts of the labels."""
        return (label.text for label in self.labels)


@dataclass(frozen=True, slots=True)
class Terms:
    """A list of terms after a prefix, ended by a full stop.

    Without the full stop the text was cut off, and its last term is not believed.
    """

    prefix: str
    separator: str = ", "

    def write(self, terms: Iterable[str]) -> str:
        """The text of some terms.

        Raises:
            ValueError: If there are none, or one could not be read back.
        """
        clean = tuple(" ".join(term.split()) for term in terms)
        if not clean:
            raise ValueError("a list of terms has at least one")
        for term in clean:
            if not term or self._mark in term or term.endswith("."):
                raise ValueError(f"term {term!r} is empty, has {self._mark!r} or ends in '.'")
        return f"{self.prefix}{self.separator.join(clean)}."

    def parse(self, text: str) -> Fields:
        """The terms, each once, in the order of the text.

        Raises:
            UnparsedError: If the prefix is missing, or no whole term follows it.
        """
        clean, prefix = " ".join(text.split()), self.prefix.strip()
        if not clean.lower().startswith(prefix.lower()):
            raise UnparsedError(f"does not begin with {prefix!r}")
        body = clean[len(prefix) :].strip()
        parts = body.removesuffix(".").split(self._mark)
        whole = parts if body.endswith(".") else parts[:-1]
        terms = tuple(dict.fromkeys(part.strip() for part in whole if part.strip()))
        if not terms:
            raise UnparsedError("has no whole term")
        return Fields(items=terms)

    def grammar(self) -> None:
        """Any text is possible."""

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Geometric mean of the tokens' probabilities; not the probability of the list."""
        return mean_probability(tokens)

    def examples(self) -> Iterable[str]:
        """One text."""
        return (self.write(("nausea", "headache", "low blood pressure")),)

    @property
    def _mark(self) -> str:
        return self.separator.strip()


@dataclass(frozen=True, slots=True)
class Text:
    """Free text."""

    def write(self, text: str) -> str:
        """The text without blanks around it.

        Raises:
            ValueError: If nothing is left.
        """
        if not text.strip():
            raise ValueError("a text has at least one character")
        return text.strip()

    def parse(self, text: str) -> Fields:
        """Nothing but the text itself.

        Raises:
            UnparsedError: If it is empty.
        """
        if not text.strip():
            raise UnparsedError("the text is empty")
        return Fields()

    def grammar(self) -> None:
        """Any text is possible."""

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Geometric mean of the tokens' probabilities; not the probability of the text."""
        return mean_probability(tokens)

    def examples(self) -> Iterable[str]:
        """None: text has no form of its own."""
        return ()


AnswerKind = Choice | Number | Terms | Text


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
