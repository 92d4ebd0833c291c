"""A task: the question about some molecules, and everything that is known of its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moltc_vllm.tasks.answer import Answer, FailedStatus, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.kinds import AnswerKind
from moltc_vllm.tasks.prompts import PromptError, build_prompt, check_question


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the task table.

    Attributes:
        name: Key in the table, in checkpoints and in requests.
        title: For people.
        question: Asked after the molecules; empty if the user gives it.
        roles: What each molecule is, in order.
        kind: Form of the answer.
        max_tokens: Longest answer. Where the grammar bounds it, there is room for one token per
            byte and the end token.
        symmetric: Whether the order of the molecules means nothing.
        any_molecules: Whether it takes any number of molecules, all of the one role.
        takes_question: Whether the user gives the question.
    """

    name: str
    title: str
    question: str
    roles: tuple[str, ...]
    kind: AnswerKind
    max_tokens: int
    symmetric: bool = False
    any_molecules: bool = False
    takes_question: bool = False

    def check(self, molecules: int, question: str | None = None) -> None:
        """Refuse a request that does not fit the task.

        Raises:
            PromptError: If the number of molecules is wrong, or a question is missing, not asked
                for, or has reserved tokens.
        """
        if self.any_molecules:
            if molecules < 1:
                raise PromptError(f"task {self.name!r} takes at least one molecule")
        elif molecules != len(self.roles):
            wanted = f"{len(self.roles)} molecule(s) ({', '.join(self.roles)})"
            raise PromptError(f"task {self.name!r} takes {wanted}, not {molecules}")
        if self.takes_question:
            check_question(question or "")
        elif question is not None:
            raise PromptError(f"task {self.name!r} has its own question; use 'ask' for another")

    def prompt(self, smiles: Sequence[str], question: str | None = None) -> str:
        """The prompt about these molecules.

        Args:
            smiles: One SMILES per role, as the user wrote them.
            question: Only for a task that takes one.

        Raises:
            PromptError: See `check`.
        """
        self.check(len(smiles), question)
        return build_prompt(smiles, (question or self.question).strip())

    def write(self, target: Any) -> str:
        """The text a model is trained to answer.

        Args:
            target: A label id, a number, a list of terms or a text, as the kind has it.

        Raises:
            ValueError: If it is none of the kind's.
        """
        return self.kind.write(target)

    def answer(self, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Read a generated text.

        Args:
            text: What the model wrote.
            tokens: The generated tokens in order, for the confidence: the probability of the
                label, or of the interval of a number, and the geometric mean of the tokens'
                probabilities for lists and texts.
        """
        try:
            fields = self.kind.parse(text)
        except UnparsedError as error:
            return self.failed("unparsed", str(error), text=text)
        confidence = self.kind.confidence(text, tokens)
        return Answer(
            task=self.name, status="ok", text=text, confidence=confidence, **asdict(fields)
        )

    def failed(self, status: FailedStatus, error: str, text: str | None = None) -> Answer:
        """The answer of a pair that has none."""
        return Answer(task=self.name, status=status, error=error or "no reason given", text=text)

    def grammar(self) -> Grammar | None:
        """All texts that are answers, if that can be said."""
        return self.kind.grammar()

    def examples(self) -> Iterator[str]:
        """The question and some answers: the words of the task."""
        if self.question:
            yield self.question
        yield from self.kind.examples()
