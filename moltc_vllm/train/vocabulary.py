"""The phrases of a new model's tokenizer: those of the tasks, and of calculated properties."""

from __future__ import annotations

import re

from moltc_vllm.data.descriptors import DESCRIPTORS, Descriptor
from moltc_vllm.models.phrase_tokens import PhraseTokens, phrase_tokens_for
from moltc_vllm.tasks import TASKS

_LARGEST = 1000  # whole parts up to this are one token with what stands before them


def training_phrases() -> PhraseTokens:
    """PhraseTokens of all tasks and of the sentences that `moltc_vllm.data` writes about molecules."""
    tasks = phrase_tokens_for(TASKS.values())
    texts: dict[str, None] = dict.fromkeys(tasks.texts)
    patterns = []
    for place in (1, 2):
        texts[f"Molecule {place}: "] = None
        texts[f" Molecule {place}: "] = None
    patterns.append(r" ?Molecule [12]: ")
    for one in DESCRIPTORS:
        texts |= dict.fromkeys(_sentences(one))
        patterns += _patterns(one)
    return PhraseTokens(tuple(texts), (*patterns, *tasks.patterns))


def _start(one: Descriptor) -> str:
    return f"The {one.phrase} is "


def _ending(one: Descriptor) -> str:
    return f" {one.unit}." if one.unit else "."


def _sentences(one: Descriptor) -> list[str]:
    low, high = int(one.bounds[0]), min(int(one.bounds[1]), _LARGEST)
    wholes = [*(str(number) for number in range(low, high + 1)), *(["-0"] if low < 0 else [])]
    if not one.decimals:
        starts = [f"{_start(one)}{whole}{_ending(one)}" for whole in wholes if whole != "-0"]
        return [blank + start for blank in ("", " ") for start in starts]
    parts = (str(number).zfill(one.decimals) for number in range(10**one.decimals))
    starts = [f"{_start(one)}{whole}" for whole in wholes]
    return [
        *(blank + start for blank in ("", " ") for start in starts),
        *(f".{part}{_ending(one)}" for part in parts),
    ]


def _patterns(one: Descriptor) -> list[str]:
    start, ending = re.escape(_start(one)), re.escape(_ending(one))
    if not one.decimals:
        return [f" ?{start}-?[0-9]+{ending}"]
    digits = f"[0-9]{{{one.decimals}}}"
    return [rf" ?{start}-?[0-9]+(?=\.{digits})", rf"\.{digits}{ending}"]
