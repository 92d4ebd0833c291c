"""Phrase vocabulary of a new model's tokenizer: task texts and property sentences."""

from __future__ import annotations

import re

from moltc_vllm.data.descriptors import DESCRIPTORS, Descriptor
from moltc_vllm.models.phrase_tokens import PhraseVocabulary, phrase_vocabulary
from moltc_vllm.tasks import TASKS

_MAX_INTEGER_PART = 1000  # larger integer parts have no token together with the preceding text


def training_phrases() -> PhraseVocabulary:
    """Return the phrases of all tasks and of the property sentences in `moltc_vllm.data`."""
    tasks = phrase_vocabulary(TASKS.values())
    texts: dict[str, None] = dict.fromkeys(tasks.texts)
    patterns = []
    for number in (1, 2):
        texts[f"Molecule {number}: "] = None
        texts[f" Molecule {number}: "] = None
    patterns.append(r" ?Molecule [12]: ")
    for descriptor in DESCRIPTORS:
        texts |= dict.fromkeys(_phrases(descriptor))
        patterns += _patterns(descriptor)
    return PhraseVocabulary(tuple(texts), (*patterns, *tasks.patterns))


def _prefix(descriptor: Descriptor) -> str:
    return f"The {descriptor.phrase} is "


def _suffix(descriptor: Descriptor) -> str:
    return f" {descriptor.unit}." if descriptor.unit else "."


def _phrases(descriptor: Descriptor) -> list[str]:
    """Return the whole sentences of an integer descriptor, or their halves at the decimal point."""
    prefix, suffix = _prefix(descriptor), _suffix(descriptor)
    low, high = int(descriptor.bounds[0]), min(int(descriptor.bounds[1]), _MAX_INTEGER_PART)
    integers = [str(number) for number in range(low, high + 1)]
    if not descriptor.decimals:
        sentences = [f"{prefix}{integer}{suffix}" for integer in integers]
        return [blank + sentence for blank in ("", " ") for sentence in sentences]
    if low < 0:
        integers.append("-0")  # the integer part of -0.5
    beginnings = [f"{prefix}{integer}" for integer in integers]
    decimals = (str(number).zfill(descriptor.decimals) for number in range(10**descriptor.decimals))
    return [
        *(blank + beginning for blank in ("", " ") for beginning in beginnings),
        *(f".{digits}{suffix}" for digits in decimals),
    ]


def _patterns(descriptor: Descriptor) -> list[str]:
    """Return regular expressions that split the phrases from other text."""
    prefix, suffix = re.escape(_prefix(descriptor)), re.escape(_suffix(descriptor))
    if not descriptor.decimals:
        return [f" ?{prefix}-?[0-9]+{suffix}"]
    digits = f"[0-9]{{{descriptor.decimals}}}"
    return [rf" ?{prefix}-?[0-9]+(?=\.{digits})", rf"\.{digits}{suffix}"]
