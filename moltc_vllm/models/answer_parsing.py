"""Parsing of generated tokens into texts and typed answers, by the checkpoint's prompt style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.token_candidate import TokenCandidates
from moltc_vllm.tasks import Answer, PromptStyle, Task, TokenLogprob

NO_CANDIDATES = TokenCandidates()


class RawAnswer(NamedTuple):
    """Answer before calibration, see `moltc_vllm.models.answer_calibrator`.

    Attributes:
        answer: The answer; its confidence is the model's own probability.
        log_probabilities: ``[K]`` log-probabilities of a numeric task's intervals, up to a summand;
            ``None`` if the engine did not report them.
    """

    answer: Answer
    log_probabilities: npt.NDArray[np.float64] | None = None


def decode_answer(style: PromptStyle, tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Decode tokens to text and clean it up as the prompt style prescribes."""
    return style.clean(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def parse_answer(
    task: Task,
    style: PromptStyle,
    tokenizer: Any,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    candidates: TokenCandidates = NO_CANDIDATES,
) -> RawAnswer:
    """Parse generated tokens into a typed answer.

    Args:
        task: Task that was answered.
        style: Prompt style of the checkpoint.
        tokenizer: Tokenizer of the checkpoint.
        token_ids: Generated tokens without the stop token.
        logprobs: Log-probability of each token.
        candidates: Most probable first tokens. If they include intervals, the value of a numeric
            answer is the mean over them instead of the generated digits.
    """
    tokens = [
        TokenLogprob(_token_text(tokenizer, token), logprob)
        for token, logprob in zip(token_ids, logprobs, strict=True)
    ]
    answer = style.read(task, decode_answer(style, tokenizer, token_ids), tokens)
    if not candidates.token_ids or answer.value is None:
        return RawAnswer(answer)
    intervals = interval_vocabulary(task, tokenizer)
    distribution = None if intervals is None else intervals.log_probabilities(candidates)
    if intervals is None or distribution is None:
        return RawAnswer(answer)
    value = intervals.mean_value(distribution)
    return RawAnswer(answer.model_copy(update={"value": value}), distribution)


def parse_interval_token(
    task: Task,
    tokenizer: Any,
    token_id: int,
    logprob: float,
    candidates: TokenCandidates,
) -> RawAnswer:
    """Build the typed answer of a numeric task from its interval token alone.

    The answer has no text and no generated value, because no digits were generated.

    Args:
        task: Numeric task that was answered.
        tokenizer: Tokenizer of the checkpoint, with one token for each interval.
        token_id: Token of the most probable interval.
        logprob: Log-probability of that token among all intervals.
        candidates: Most probable interval tokens, over which the value is averaged.
    """
    intervals = interval_vocabulary(task, tokenizer)
    assert intervals is not None
    distribution = intervals.log_probabilities(candidates)
    assert distribution is not None
    interval = intervals.kind.intervals()[intervals.index_of[token_id]]
    answer = Answer(
        task=task.name,
        status="ok",
        value=intervals.mean_value(distribution),
        unit=intervals.kind.unit or None,
        likeliest_interval=intervals.kind.clip(*interval),
        confidence=min(math.exp(logprob), 1.0),
    )
    return RawAnswer(answer, distribution)


# Every answer needs the text of each of its tokens, and answers use only a few different tokens.
@lru_cache(maxsize=1 << 16)
def _token_text(tokenizer: Any, token_id: int) -> str:
    return str(tokenizer.decode([token_id]))
