"""Answer kinds other than numbers: a class, a list of terms, free text.

Every kind writes the text a model is trained on, parses it, and provides a grammar where the set
of valid texts is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from moltc_vllm.tasks.answer import ParsedFields, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob, joint_probability, mean_probability
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.prompts import RESERVED_TOKENS

# A replacement character stands for bytes that are not UTF-8.
_UNREADABLE = re.compile(
    "|".join((r"[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", *map(re.escape, RESERVED_TOKENS)))
)
_MAX_PHRASE_WORDS, _MIN_REPETITIONS = 8, 6


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
        for name in ("id", "name", "text"):
            if len({getattr(label, name) for label in self.labels}) < len(self.labels):
                raise ValueError(f"two labels have the same {name}")

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

    Attributes:
        prefix: Text before the terms.
        separator: Text between two terms.
        vocabulary: All terms that an answer may have; empty if any text may be a term.
    """

    prefix: str
    separator: str = ", "
    # Manifests of screens hold a checksum of the representation, which must stay the same.
    vocabulary: tuple[str, ...] = field(default=(), repr=False)

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
        if unknown := self._unknown(clean):
            raise ValueError(
                f"term {unknown[0]!r} is not one of the {len(self.vocabulary)} known terms"
            )
        return f"{self.prefix}{self.separator.join(clean)}."

    def parse(self, text: str) -> ParsedFields:
        """Return the distinct terms in the order of the text, spelled as in the vocabulary.

        Raises:
            UnparsedError: If the prefix is missing, no complete term follows it, or a term is not
                in the vocabulary; the message names the first such term.
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
        if unknown := self._unknown(terms):
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UnparsedError(
                f"{unknown[0]!r}{more}: not among the {len(self.vocabulary)} known terms"
            )
        spelling = _spellings(self.vocabulary)
        return ParsedFields(
            items=tuple(dict.fromkeys(spelling.get(_normalized(term), term) for term in terms))
        )

    def grammar(self) -> None:
        """Return None: a wrong term is to be seen, not replaced by a known one."""

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Return the geometric mean of the tokens' probabilities."""
        return mean_probability(tokens)

    def examples(self) -> Iterable[str]:
        """Return one answer text."""
        return (self.write(self.vocabulary[:3] or ("nausea", "pain", "fatigue")),)

    def _unknown(self, terms: Iterable[str]) -> list[str]:
        """Return the terms that are not in the vocabulary, ignoring case."""
        spelling = _spellings(self.vocabulary)
        return [term for term in terms if spelling and _normalized(term) not in spelling]

    @property
    def _delimiter(self) -> str:
        return self.separator.strip()


@dataclass(frozen=True, slots=True)
class Text:
    """Free text: readable words that do not repeat without end.

    The content is not checked. Unreadable and repetitive texts, which language models generate when
    they have no answer, are rejected.
    """

    def write(self, text: str) -> str:
        """Return the text without surrounding whitespace.

        Raises:
            ValueError: If the text is empty.
        """
        if not text.strip():
            raise ValueError("the text is empty")
        return text.strip()

    def parse(self, text: str) -> ParsedFields:
        """Accept a readable text; it has no fields.

        Raises:
            UnparsedError: If the text is empty, has no word, has bytes that are not UTF-8, control
                characters or the markup of molecules, or ends in a phrase that it repeats.
        """
        if not text.strip():
            raise UnparsedError("the text is empty")
        # A text may be cut off within a character.
        if unreadable := _UNREADABLE.search(text.rstrip("\ufffd")):
            raise UnparsedError(f"contains {unreadable[0]!a}, which is not text")
        if not any(character.isalnum() for character in text):
            raise UnparsedError("contains no word")
        if phrase := _repeated_phrase(text.split()):
            raise UnparsedError(f"ends in repetitions of {phrase!r}")
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


@cache
def _spellings(vocabulary: tuple[str, ...]) -> dict[str, str]:
    """Return the terms of a vocabulary by their normalized form."""
    return {_normalized(term): term for term in vocabulary}


def _repeated_phrase(words: list[str]) -> str | None:
    """Return the phrase of a few words that fills the end of a text, or None."""
    for length in range(1, _MAX_PHRASE_WORDS + 1):
        phrase = words[-length:]
        tail = words[-length * _MIN_REPETITIONS :]
        if len(tail) == length * _MIN_REPETITIONS and tail == phrase * _MIN_REPETITIONS:
            return " ".join(phrase)
    return None
