"""Task: a question about one or more molecules, with the kind of its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moltc_vllm.tasks.answer import Answer, FailedStatus, UnparsedError
from moltc_vllm.tasks.answer_kinds import AnswerKind, Choice
from moltc_vllm.tasks.confidence import TokenLogprob
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.prompts import PromptError, build_prompt, check_question


@dataclass(frozen=True, slots=True)
class Task:
    """Question about molecules of given roles, and the kind of its answer.

    Attributes:
        name: Key in the task table, in checkpoints and in requests.
        title: Name for display.
        question: Text after the molecules; empty if the user provides the question.
        roles: Name of each molecule's role, in order.
        kind: Kind of the answer.
        max_tokens: Maximum number of generated tokens. Where a grammar bounds the answer, this
            suffices for one token per byte and the end token.
        symmetric: Whether the answer is independent of the order of the molecules.
        any_molecules: Whether the task accepts any number of molecules, all of the same role.
        takes_question: Whether the user provides the question.
        directed_labels: Numbers of the labels in which the first molecule acts on the second.
        fallback: Name of the task that is asked of a checkpoint without this one; its labels have
            the same numbers. None if there is no such task.
        caution: Warning that is shown wherever the task is used; None for a task without one.
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
    directed_labels: frozenset[int] = frozenset()
    fallback: str | None = None
    caution: str | None = None

    @property
    def directed(self) -> bool:
        """Whether the answer about two molecules depends on their order."""
        is_typed = isinstance(self.kind, Choice | Number)
        return len(self.roles) == 2 and is_typed and not self.symmetric

    def check(self, molecules: int, question: str | None = None) -> None:
        """Reject a request that does not fit the task.

        Args:
            molecules: Number of molecules.
            question: Question of the user, if given.

        Raises:
            PromptError: If the number of molecules is wrong, or a question is missing, not
                accepted by the task, or contains reserved tokens.
        """
        if self.any_molecules:
            if molecules < 1:
                raise PromptError(f"task {self.name!r} takes at least one molecule")
        elif molecules != len(self.roles):
            expected = f"{len(self.roles)} molecule(s) ({', '.join(self.roles)})"
            raise PromptError(f"task {self.name!r} takes {expected}, not {molecules}")
        if self.takes_question:
            check_question(question or "")
        elif question is not None:
            raise PromptError(f"task {self.name!r} has its own question; use 'ask' for another")

    def prompt(self, smiles: Sequence[str], question: str | None = None) -> str:
        """Return the prompt in the ``moltc`` style.

        Args:
            smiles: SMILES as written by the user, one per role.
            question: Question of the user, only for a task that takes one.

        Raises:
            PromptError: If the arguments do not fit the task; see `check`.
        """
        self.check(len(smiles), question)
        return build_prompt(smiles, (question or self.question).strip())

    def write(self, target: Any) -> str:
        """Return the answer text a model is trained to generate for a target.

        Args:
            target: Label id, number, list of terms or text, depending on the answer kind.

        Raises:
            ValueError: If the target is not valid for the answer kind.
        """
        return self.kind.write(target)

    def parse_answer(self, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Parse a generated text; a text that is not an answer gives the status ``unparsed``.

        Args:
            text: Generated text.
            tokens: Generated tokens in order, for the confidence: the probability of the label,
                the probability of a number's interval, or the geometric mean of the tokens'
                probabilities for lists and texts.
        """
        try:
            fields = self.kind.parse(text)
        except UnparsedError as error:
            return self.failed("unparsed", str(error), text=text)
        interval = fields.interval
        if interval is not None and isinstance(self.kind, Number):
            interval = self.kind.clip(*interval)
        return Answer(
            task=self.name,
            status="ok",
            text=text,
            confidence=self.kind.confidence(text, tokens),
            value=fields.value,
            generated_value=fields.generated_value,
            label=fields.label,
            label_id=fields.label_id,
            items=fields.items,
            unit=fields.unit,
            likeliest_interval=interval,
        )

    def with_direction(self, answer: Answer, smiles: Sequence[str]) -> Answer:
        """Return an answer with the subject and object of its label, if the label has a direction.

        Args:
            answer: Parsed or failed answer.
            smiles: SMILES as written by the user, one per role; empty if they are not known.
        """
        if not smiles or answer.label_id not in self.directed_labels:
            return answer
        subject, object_ = smiles
        return answer.model_copy(update={"subject": subject, "object": object_})

    def failed(self, status: FailedStatus, error: str, text: str | None = None) -> Answer:
        """Return an answer with the reason of a failure."""
        return Answer(task=self.name, status=status, error=error or "no reason given", text=text)

    def grammar(self) -> Grammar | None:
        """Return the grammar of valid answers, or None if every text is valid."""
        return self.kind.grammar()

    def examples(self) -> Iterator[str]:
        """Return the question and sample answers, e.g. to train a tokenizer on."""
        if self.question:
            yield self.question
        yield from self.kind.examples()
