"""`Engine` in plain torch, slow but independent of vLLM, as the reference for its answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moltc_vllm.chem import MoleculeError
from moltc_vllm.models.adapter_switcher import AdapterSwitcher
from moltc_vllm.models.adapters import load_adapters
from moltc_vllm.models.answer_calibrator import AnswerCalibrator
from moltc_vllm.models.answer_parsing import (
    NO_CANDIDATES,
    RawAnswer,
    decode_answer,
    parse_answer,
)
from moltc_vllm.models.checkpoint import load_model, load_tokenizer
from moltc_vllm.models.decoding import LogitsProcessor
from moltc_vllm.models.projector import ProjectorError, projector_index
from moltc_vllm.models.prompt import Prompt, encoder_key_fn, prepare_inputs
from moltc_vllm.models.prompt_composer import PromptComposer, ignores_order
from moltc_vllm.models.token_candidate import TokenCandidates
from moltc_vllm.models.tokenizer import stop_token_id
from moltc_vllm.tasks import (
    Answer,
    GenerationLimits,
    PromptError,
    Task,
    get_task,
    uses_grammar,
)
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE, check_coverage
from moltc_vllm.utils.standardization import Standardization, check_standardization


class TorchGeneration(NamedTuple):
    """A generated answer as tokens, without the stop token.

    Attributes:
        token_ids: Generated tokens.
        logprobs: Log-probability of each token.
        first_token_candidates: Most probable first tokens; empty after a beam search.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    first_token_candidates: TokenCandidates = NO_CANDIDATES


class TorchEngine:
    """Engine that runs `MoltcModel`, with the adapter of the task if the folder has one.

    Args:
        folder: Checkpoint folder.
        constrained: Whether answers must follow their task's grammar, which needs xgrammar (a
            dependency of vLLM) and excludes beams; default: the choice of the checkpoint's prompt
            style.
        batch_size: Number of pairs generated together.
        device: Device of the model.
        beams: Width of the beam search; 1 is greedy decoding.
        pad_query: Whether to predict the first token from a pad, see `prepare_inputs`.
        adapters: Whether to load the folder's adapters.
        coverage: Coverage of the prediction intervals of numeric answers.
        standardize: How molecules are standardized; default: the choice of the checkpoint.

    Raises:
        CheckpointError: If the folder or one of its adapters is incomplete or invalid.
        ValueError: If both a beam search and a grammar are requested.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        constrained: bool | None = None,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
        beams: int = 1,
        pad_query: bool = False,
        adapters: bool = True,
        coverage: float = DEFAULT_COVERAGE,
        standardize: Standardization | None = None,
    ) -> None:
        self.coverage = check_coverage(coverage)
        self.model = load_model(Path(folder), device=device)
        self._adapters = AdapterSwitcher(
            self.model.language_model, load_adapters(Path(folder)) if adapters else []
        )
        self.tokenizer = load_tokenizer(Path(folder))
        self.config = self.model.config
        if standardize is not None:
            self.config.standardization = check_standardization(standardize)
        self.standardize = self.config.standardization
        self.style = self.config.style
        self._composer = PromptComposer(self.config)
        self.calibrator = AnswerCalibrator.load(Path(folder), self.config)
        self._encoder_key = encoder_key_fn(self.config)
        self.constrained = uses_grammar(self.style, constrained, beams)
        self.batch_size = batch_size
        self.beams = beams
        self.pad_query = pad_query
        self._stop = stop_token_id(self.tokenizer, self.style)
        self._grammars = _GrammarCompiler(self.tokenizer, self.config.text_config.vocab_size)

    def ignores_order(self, task: str) -> bool:
        """See `moltc_vllm.tasks.engine.OrderAwareEngine`."""
        return ignores_order(self.config, get_task(task))

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`."""
        known_task = get_task(task)
        for pair, raw in self.submit_raw(known_task, pairs, question):
            answer = self.calibrator.complete(known_task, raw, pair.molecules, self.coverage)
            yield pair, answer

    def submit_raw(
        self, task: Task, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, RawAnswer]]:
        """Answer every pair without the checkpoint's calibration.

        Args:
            task: Task to answer.
            pairs: Pairs to answer.
            question: Text of the question, for tasks that take one.
        """
        remaining = iter(pairs)
        while batch := list(itertools.islice(remaining, self.batch_size)):
            prompts: list[tuple[Pair, Prompt]] = []
            for pair in batch:
                try:
                    prompts.append((pair, self._prompt(task, pair, question)))
                except MoleculeError as error:
                    yield pair, RawAnswer(task.failed("bad_molecule", str(error)))
                except (ProjectorError, PromptError) as error:
                    yield pair, RawAnswer(task.failed("error", str(error)))
            if prompts:
                answers = self._answers(task, [prompt for _, prompt in prompts])
                yield from zip((pair for pair, _ in prompts), answers, strict=True)

    def _prompt(self, task: Task, pair: Pair, question: str | None) -> Prompt:
        # Check every molecule here, so that one failure does not affect the rest of the batch.
        for role, smiles in enumerate(pair.molecules):
            self._encoder_key(smiles)
            projector_index(self.config, role, task.name)
        text, order = self._composer.compose(task, pair.molecules, question)
        return Prompt(text, [pair.molecules[index] for index in order], task.name)

    def _answers(self, task: Task, prompts: list[Prompt]) -> list[RawAnswer]:
        return [
            parse_answer(task, self.style, self.tokenizer, *generation)
            for generation in self.generate(task, prompts)
        ]

    def generate(
        self, task: Task, prompts: list[Prompt], limits: GenerationLimits | None = None
    ) -> list[TorchGeneration]:
        """Generate the best answer to each prompt.

        Args:
            task: Task of all prompts, which determines adapter and grammar.
            prompts: Prompts that form one batch.
            limits: Minimum and maximum length of the answers; default: the prompt style's limits
                for the task.
        """
        inputs = prepare_inputs(
            prompts, self.tokenizer, self.config, self.model.device, pad_query=self.pad_query
        )._asdict()
        with self._adapters.activate(task.name):
            return self._generate(task, inputs, limits or self.style.limits(task))

    def _generate(
        self, task: Task, inputs: dict[str, Any], limits: GenerationLimits
    ) -> list[TorchGeneration]:
        if self.beams > 1:
            hypotheses = self.model.beam_search(
                **inputs, width=self.beams, limits=limits, eos_token_id=_eos_argument(self._stop)
            )
            return [TorchGeneration(best.tokens, best.logprobs) for best, *_ in hypotheses]
        processors = self._grammars.processors(task) if self.constrained else []
        stop = self._stop
        if processors:
            # A grammar ends with the tokenizer's end token, in every prompt style.
            limits, stop = GenerationLimits(task.max_tokens), self.tokenizer.eos_token_id
        out = self.model.generate(
            **inputs,
            max_new_tokens=limits.max_new_tokens,
            min_new_tokens=limits.min_new_tokens,
            logits_processor=processors,
            eos_token_id=_eos_argument(stop),
        )
        candidates = _candidates(out.first_logprobs, self.calibrator.num_candidates(task))
        rows = zip(out.token_ids, out.logprobs, candidates, strict=True)
        return [TorchGeneration(*row) for row in rows]

    def text(self, token_ids: Sequence[int]) -> str:
        """Decode tokens to text and clean it up as the prompt style prescribes."""
        return decode_answer(self.style, self.tokenizer, token_ids)


def _candidates(logprobs: Tensor, count: int) -> Iterator[TokenCandidates]:
    """Yield the ``count`` most probable tokens of each row of ``logprobs [B, V]``."""
    top = logprobs.topk(min(count, logprobs.shape[-1]))
    for row in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        yield TokenCandidates(*row)


def _eos_argument(stop: int | None) -> int:
    """Return the stop token for `MoltcModel`, in which -1 means that no token ends an answer."""
    return -1 if stop is None else stop


class _GrammarCompiler:
    """Compiled grammars of the tasks, as logits processors."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self._compiler: Any = None

    def processors(self, task: Task) -> list[LogitsProcessor]:
        """Return a new processor for one batch; an empty list for a task without a grammar."""
        grammar = task.grammar()
        if grammar is None:
            return []
        import xgrammar
        from xgrammar.contrib import hf

        if self._compiler is None:
            info = xgrammar.TokenizerInfo.from_huggingface(
                self.tokenizer, vocab_size=self.vocab_size
            )
            self._compiler = xgrammar.GrammarCompiler(info)  # caches compiled grammars by text
        if grammar.kind == "regex":
            compiled = self._compiler.compile_regex(str(grammar.value))
        else:
            choices = " | ".join(_quote(text) for text in grammar.value)
            compiled = self._compiler.compile_grammar(f"root ::= {choices}")
        return [hf.LogitsProcessor(compiled)]


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
