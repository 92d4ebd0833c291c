"""Tokenizer in the Galactica manner: SMILES one character at a time, digits alone, byte-level BPE.

Galactica's ``tokenizer.json`` splits on a marker text; whoever tokenizes has to put the marker
between the characters of a SMILES first. Doing it inside the tokenizer means that nobody else,
vLLM included, needs to know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from moltc_vllm.models.phrase_tokens import PhraseTokens
from moltc_vllm.tasks import MOLECULE_TOKEN, PromptStyle

SPLIT_MARKER = "SPL1T-TH1S-Pl3A5E"

SPECIAL_TOKENS = (
    *("<s>", "<pad>", "</s>", "<unk>", "[START_REF]", "[END_REF]", "[IMAGE]"),
    *("<fragments>", "</fragments>", "<work>", "</work>"),
    *("[START_SUP]", "[END_SUP]", "[START_SUB]", "[END_SUB]", "[START_DNA]", "[END_DNA]"),
    *("[START_AMINO]", "[END_AMINO]", "[START_SMILES]", "[END_SMILES]"),
    *("[START_I_SMILES]", "[END_I_SMILES]"),
)
"""Galactica's special tokens; a token's id is its place here."""

_SEQUENCE = re.compile(r"(\[START_(DNA|SMILES|I_SMILES|AMINO)])(.*?)(\[END_\2])")

# A user's turn is the question (molecules are marked up before); the answer starts on a line of
# its own, as in the tasks' prompts, and ends with </s>.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}{{ message['content'] + eos_token }}"
    "{%- else -%}{{ message['content'] + '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
)


def mark_sequences(text: Any) -> Any:
    """Put the split marker before each character between sequence tags, and before the end tag.

    Strings inside lists and tuples are handled too; anything else is returned as it is.
    """
    if isinstance(text, str):
        return _SEQUENCE.sub(_mark, text) if "[START_" in text else text
    if isinstance(text, (list, tuple)):
        return type(text)(mark_sequences(item) for item in text)
    return text


def _mark(match: re.Match[str]) -> str:
    start, _, content, end = match.groups()
    return start + "".join(SPLIT_MARKER + character for character in content) + SPLIT_MARKER + end


class MoltcTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer that puts the split marker in by itself."""

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Tokenize; see `transformers.PreTrainedTokenizerBase.__call__`."""
        return super().__call__(mark_sequences(text), *args, **kwargs)

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """Token ids; see `transformers.PreTrainedTokenizerBase.encode`."""
        return super().encode(mark_sequences(text), *args, **kwargs)


def stop_token_id(tokenizer: Any, style: PromptStyle) -> int | None:
    """Id of the token that ends an answer in a style.

    Raises:
        ValueError: If the tokenizer writes the style's stop text with more than one token.
    """
    if style.stop is None:
        return tokenizer.eos_token_id
    ids = tokenizer.encode(style.stop, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"the stop text {style.stop!r} of {style.name!r} is {len(ids)} tokens")
    return int(ids[0])


def _galactica_rules(phrases: PhraseTokens | None = None) -> Tokenizer:
    """An untrained tokenizer with Galactica's splitting rules; phrases go before all others."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.ByteLevel()
    if phrases is not None:
        # One expression, as a second splitter would split the phrases again.
        rules = [*phrases.patterns, r"[\(\)\[\]\{\}]", r"\n", r"\p{N}", r" ?\p{L}+"]
        rules += [r"([!-/:-@\\^-`|~])\1*", r"[^\s\p{L}\p{N}]+", r"\s+"]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(SPLIT_MARKER, "removed"),
                pre_tokenizers.Split(Regex("|".join(rules)), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        return tokenizer
    punctuation = r"""([!"\#\$%\&'\*\+,\-\./:;<=>\?\\\^_`\|\~])\1*"""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT_MARKER, "removed"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[\(\)\[\]\{\}]|" + punctuation), "isolated"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return tokenizer


def train_tokenizer(
    corpus: Iterable[str], vocab_size: int, phrases: PhraseTokens | None = None
) -> MoltcTokenizer:
    """Learn a small vocabulary from a corpus; deterministic.

    Args:
        corpus: Texts, SMILES between their tags included.
        vocab_size: Upper bound; special tokens and the 256 bytes come first, ``<mol>`` last.
        phrases: Texts that get a token each, besides those that are learned.
    """
    tokenizer = _galactica_rules(phrases)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((mark_sequences(text) for text in corpus), trainer)
    if phrases is not None:
        tokenizer.model = _with_phrases(tokenizer, phrases)
    return as_moltc_tokenizer(tokenizer)


def _with_phrases(tokenizer: Tokenizer, phrases: PhraseTokens) -> Any:
    """The tokenizer's model, and a token per phrase that no merges lead to."""
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in phrases.texts:
        ((written, _),) = to_bytes.pre_tokenize_str(text)
        vocabulary.setdefault(written, len(vocabulary))
    merges = [tuple(merge) for merge in learned["merges"]]
    return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True)


def as_moltc_tokenizer(tokenizer: Tokenizer) -> MoltcTokenizer:
    """Dress a Galactica-style tokenizer for MolTC: ``<mol>`` added last, pad, stop, template."""
    wrapped = MoltcTokenizer(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        # It rewrites " ." to "." in answers, which would change what a model wrote.
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_tokens([MOLECULE_TOKEN])
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
