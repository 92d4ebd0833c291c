"""From generated tokens to text and typed answer, as a checkpoint's prompt style has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from moltc_vllm.models.interval_tokens import TokenCandidate, interval_vocabulary
from moltc_vllm.tasks import Answer, PromptStyle, Task, TokenLogprob


def read_text(style: PromptStyle, tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Tokens as the style's users read them."""
    return style.clean(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def read_answer(
    task: Task,
    style: PromptStyle,
    tokenizer: Any,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    likely: Sequence[TokenCandidate] = (),
) -> Answer:
    """The typed answer that generated tokens are.

    Args:
        task: What was asked.
        style: The checkpoint's prompt style.
        tokenizer: The checkpoint's.
        token_ids: Without the stop token.
        logprobs: Of each token.
        likely: The likeliest first tokens; a number's value is then their mean, if it can be.
    """
    tokens = [
        TokenLogprob(_token_text(tokenizer, token), logprob)
        for token, logprob in zip(token_ids, logprobs, strict=True)
    ]
    answer = style.read(task, read_text(style, tokenizer, token_ids), tokens)
    if likely and answer.value is not None and (scale := interval_vocabulary(task, tokenizer)):
        mean = scale.mean(likely)
        if mean is not None:
            return answer.model_copy(update={"value": mean})
    return answer


def read_interval(
    task: Task, tokenizer: Any, token: int, logprob: float, likely: Sequence[TokenCandidate]
) -> Answer:
    """The typed answer that the one token of an interval is; nothing is stated, nothing written.

    Args:
        task: What was asked.
        tokenizer: The checkpoint's; it has a token for each interval.
        token: That was chosen.
        logprob: Of it, among all intervals.
        likely: The likeliest intervals' tokens.
    """
    scale = interval_vocabulary(task, tokenizer)
    assert scale is not None
    return Answer(
        task=task.name,
        status="ok",
        value=scale.mean(likely),
        unit=scale.kind.unit or None,
        interval=scale.kind.intervals()[scale.places[token]],
        confidence=min(math.exp(logprob), 1.0),
    )


# Every answer asks for the text of each of its tokens, and they are few: a grammar's.
@lru_cache(maxsize=1 << 16)
def _token_text(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token]))
