"""Plain torch as an `Engine`: slow, independent of vLLM, and therefore the reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from moltc_vllm.chem import MoleculeError
from moltc_vllm.models.adapter_switcher import AdapterSwitcher
from moltc_vllm.models.adapters import load_adapters
from moltc_vllm.models.answer_parsing import read_answer, read_text
from moltc_vllm.models.checkpoint import load_model, load_tokenizer
from moltc_vllm.models.decoding import Processor
from moltc_vllm.models.interval_tokens import LIKELIEST, TokenCandidate
from moltc_vllm.models.projector import ProjectorError, projector_index
from moltc_vllm.models.prompt import Prompt, encoder_keys, prepare
from moltc_vllm.models.tokenizer import stop_token_id
from moltc_vllm.tasks import (
    Answer,
    Limits,
    PromptError,
    Task,
    get_task,
    held_to_grammar,
)
from moltc_vllm.tasks.engine import Pair


class Generated(NamedTuple):
    """An answer as tokens, without the stop token."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    likely: Sequence[TokenCandidate] = ()  # first tokens; not of beams


class TorchEngine:
    """`MoltcModel` behind the engine protocol, each task with its adapter where there is one.

    Args:
        folder: Checkpoint folder.
        constrained: Hold answers to their task's grammar (needs xgrammar, which vLLM brings);
            default: as the checkpoint's prompt style has it, and never with beams.
        batch: Pairs generated together.
        device: Where to run.
        beams: Answers are searched with so many beams; 1: greedily.
        pad_query: Predict the first token from a pad, see `prepare`.
        adapters: Use the folder's adapters.

    Raises:
        CheckpointError: If the folder or one of its adapters is not whole.
        ValueError: For a grammar together with beams.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        constrained: bool | None = None,
        batch: int = 8,
        device: torch.device | str = "cpu",
        beams: int = 1,
        pad_query: bool = False,
        adapters: bool = True,
    ) -> None:
        self.model = load_model(Path(folder), device=device)
        self._adapters = AdapterSwitcher(
            self.model.language_model, load_adapters(Path(folder)) if adapters else []
        )
        self.tokenizer = load_tokenizer(Path(folder))
        self.config = self.model.config
        self.style = self.config.style
        self._key = encoder_keys(self.config)
        self.constrained = held_to_grammar(self.style, constrained, beams)
        self.batch = batch
        self.beams = beams
        self.pad_query = pad_query
        self._stop = stop_token_id(self.tokenizer, self.style)
        self._grammars = _Grammars(self.tokenizer, self.config.text_config.vocab_size)

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`."""
        wanted = get_task(task)
        source = iter(pairs)
        while batch := list(itertools.islice(source, self.batch)):
            readable: list[tuple[Pair, Prompt]] = []
            for pair in batch:
                try:
                    readable.append((pair, self._prompt(wanted, pair, question)))
                except MoleculeError as error:
                    yield pair, wanted.failed("bad_molecule", str(error))
                except (ProjectorError, PromptError) as error:
                    yield pair, wanted.failed("error", str(error))
            if readable:
                answers = self._answers(wanted, [prompt for _, prompt in readable])
                yield from zip((pair for pair, _ in readable), answers, strict=True)

    def _prompt(self, task: Task, pair: Pair, question: str | None) -> Prompt:
        for role, smiles in enumerate(pair.molecules):
            self._key(smiles)
            projector_index(self.config, role, task.name)
        text, order = self.style.compose(task, pair.molecules, question)
        return Prompt(text, [pair.molecules[place] for place in order], task.name)

    def _answers(self, task: Task, prompts: list[Prompt]) -> list[Answer]:
        return [
            read_answer(
                task, self.style, self.tokenizer, found.token_ids, found.logprobs, found.likely
            )
            for found in self.generate(task, prompts)
        ]

    def generate(
        self, task: Task, prompts: list[Prompt], limits: Limits | None = None
    ) -> list[Generated]:
        """The best answer to each prompt.

        Args:
            task: For its adapter, its grammar, and its limits where none are given.
            prompts: Generated together.
            limits: Of the answers' lengths.
        """
        inputs = prepare(
            prompts, self.tokenizer, self.config, self.model.device, pad_query=self.pad_query
        )._asdict()
        with self._adapters.using(task.name):
            return self._generate(task, inputs, limits or self.style.limits(task))

    def _generate(self, task: Task, inputs: dict[str, Any], limits: Limits) -> list[Generated]:
        if self.beams > 1:
            found = self.model.beam_search(
                **inputs, width=self.beams, limits=limits, eos_token_id=_or_never(self._stop)
            )
            return [Generated(best[0].tokens, best[0].logprobs) for best in found]
        held = self._grammars.processors(task) if self.constrained else []
        stop = self._stop
        if held:  # a whole answer is followed by the tokenizer's end token, in any style
            limits, stop = Limits(task.max_tokens), self.tokenizer.eos_token_id
        out = self.model.generate(
            **inputs,
            max_new_tokens=limits.max_new_tokens,
            min_new_tokens=limits.min_new_tokens,
            logits_processor=held,
            eos_token_id=_or_never(stop),
        )
        top = out.first_logprobs.topk(min(LIKELIEST, out.first_logprobs.shape[-1]))
        likely = (
            [TokenCandidate(*one) for one in zip(*row, strict=True)]
            for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        )
        rows = zip(out.token_ids, out.logprobs, likely, strict=True)
        return [Generated(*row) for row in rows]

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as the style's users read them."""
        return read_text(self.style, self.tokenizer, ids)


def _or_never(stop: int | None) -> int:
    return -1 if stop is None else stop


class _Grammars:
    """Compiled grammars of the tasks."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.compiler: Any = None

    def processors(self, task: Task) -> list[Processor]:
        grammar = task.grammar()
        if grammar is None:
            return []
        import xgrammar
        from xgrammar.contrib.hf import LogitsProcessor

        if self.compiler is None:
            info = xgrammar.TokenizerInfo.from_huggingface(
                self.tokenizer, vocab_size=self.vocab_size
            )
            self.compiler = xgrammar.GrammarCompiler(info)  # caches by text
        if grammar.kind == "regex":
            compiled = self.compiler.compile_regex(str(grammar.value))
        else:
            choices = " | ".join(_quoted(text) for text in grammar.value)
            compiled = self.compiler.compile_grammar(f"root ::= {choices}")
        return [LogitsProcessor(compiled)]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
