"""Plain torch as an `Engine`: slow, independent of vLLM, and therefore the reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessorList

from moltc_vllm.chem import MoleculeError, canonical_key
from moltc_vllm.models.checkpoint import load_model, load_tokenizer
from moltc_vllm.models.projector import ProjectorError
from moltc_vllm.models.prompt import Prompt, limits_of, prepare
from moltc_vllm.tasks import Answer, PromptError, Task, TokenLogprob, get_task
from moltc_vllm.tasks.engine import Pair


class TorchEngine:
    """`MoltcModel.generate` behind the engine protocol.

    Args:
        folder: Checkpoint folder.
        constrained: Hold answers to their task's grammar (needs xgrammar, which vLLM brings).
        batch: Pairs generated together.
        device: Where to run.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        constrained: bool = True,
        batch: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = load_model(Path(folder), device=device)
        self.tokenizer = load_tokenizer(Path(folder))
        self.constrained = constrained
        self.batch = batch
        self._grammars = _Grammars(self.tokenizer, self.model.config.text_config.vocab_size)

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
                answers = self._generate(wanted, [prompt for _, prompt in readable])
                yield from zip((pair for pair, _ in readable), answers, strict=True)

    def _prompt(self, task: Task, pair: Pair, question: str | None) -> Prompt:
        for smiles in pair.molecules:
            canonical_key(smiles, limits_of(self.model.config))
        return Prompt(task.prompt(pair.molecules, question), pair.molecules, task.name)

    def _generate(self, task: Task, prompts: list[Prompt]) -> list[Answer]:
        inputs = prepare(prompts, self.tokenizer, self.model.config, self.model.device)
        held = self._grammars.processors(task) if self.constrained else None
        out = self.model.generate(
            **inputs._asdict(), max_new_tokens=task.max_tokens, logits_processor=held
        )
        return [
            task.answer(
                self.tokenizer.decode(ids, skip_special_tokens=True),
                [
                    TokenLogprob(self.tokenizer.decode([token]), logprob)
                    for token, logprob in zip(ids, logprobs, strict=True)
                ],
            )
            for ids, logprobs in zip(out.token_ids, out.logprobs, strict=True)
        ]


class _Grammars:
    """Compiled grammars of the tasks."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.compiler: Any = None

    def processors(self, task: Task) -> LogitsProcessorList | None:
        grammar = task.grammar()
        if grammar is None:
            return None
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
        return LogitsProcessorList([LogitsProcessor(compiled)])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
