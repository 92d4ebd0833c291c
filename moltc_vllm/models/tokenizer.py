"""Tokenizer with Galactica's rules: SMILES by character, single digits, byte-level BPE.

Galactica's ``tokenizer.json`` splits SMILES at a marker text, which callers must insert between the
characters. `MoltcTokenizer` inserts it itself, so that vLLM and other callers need no change.

Source: Taylor et al. 2022, "Galactica: A Large Language Model for Science", section 3.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from moltc_vllm.models.phrase_tokens import PhraseVocabulary
from moltc_vllm.tasks import MOLECULE_TOKEN, PromptStyle

SPLIT_MARKER = "SPL1T-TH1S-Pl3A5E"

SPECIAL_TOKENS = (
    *("<s>", "<pad>", "</s>", "<unk>", "[START_REF]", "[END_REF]", "[IMAGE]"),
    *("<fragments>", "</fragments>", "<work>", "</work>"),
    *("[START_SUP]", "[END_SUP]", "[START_SUB]", "[END_SUB]", "[START_DNA]", "[END_DNA]"),
    *("[START_AMINO]", "[END_AMINO]", "[START_SMILES]", "[END_SMILES]"),
    *("[START_I_SMILES]", "[END_I_SMILES]"),
)
"""Galactica's special tokens; a token's id is its index."""

_SEQUENCE = re.compile(r"(\[START_(DNA|SMILES|I_SMILES|AMINO)])(.*?)(\[END_\2])")

# The user's message is the question, already with the markup of molecules. The answer starts on a
# new line, as in the tasks' prompts, and ends with </s>.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}{{ message['content'] + eos_token }}"
    "{%- else -%}{{ message['content'] + '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
)


def mark_sequences(text: Any) -> Any:
    """Insert the split marker before each character between sequence tags and before the end tag.

    Args:
        text: String, or nested lists and tuples of strings; other values are returned unchanged.
    """
    if isinstance(text, str):
        return _SEQUENCE.sub(_insert_markers, text) if "[START_" in text else text
    if isinstance(text, (list, tuple)):
        return type(text)(mark_sequences(item) for item in text)
    return text


def _insert_markers(match: re.Match[str]) -> str:
    start, _, content, end = match.groups()
    return start + "".join(SPLIT_MARKER + character for character in content) + SPLIT_MARKER + end


class MoltcTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer that inserts Galactica's split marker itself."""

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Tokenize texts; see `transformers.PreTrainedTokenizerBase.__call__`."""
        return super().__call__(mark_sequences(text), *args, **kwargs)

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """Return token ids; see `transformers.PreTrainedTokenizerBase.encode`."""
        return super().encode(mark_sequences(text), *args, **kwargs)


def stop_token_id(tokenizer: Any, style: PromptStyle) -> int | None:
    """Return the id of the token that ends an answer.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        style: Prompt style of the checkpoint.

    Raises:
        ValueError: If the style's stop text is more than one token.
    """
    if style.stop is None:
        return tokenizer.eos_token_id
    ids = tokenizer.encode(style.stop, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"the stop text {style.stop!r} of prompt style {style.name!r} is {len(ids)} tokens; "
            "it must be one"
        )
    return int(ids[0])


def untrained_galactica_tokenizer(phrases: PhraseVocabulary | None = None) -> Tokenizer:
    """Create an untrained tokenizer with Galactica's splitting rules.

    Args:
        phrases: Phrases that are split from other text before all rules; default: none.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.ByteLevel()
    if phrases is not None:
        # All rules are one expression, because a second splitter would split phrases again.
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
    corpus: Iterable[str], vocab_size: int, phrases: PhraseVocabulary | None = None
) -> MoltcTokenizer:
    """Train a small vocabulary on a corpus; the result is deterministic.

    Args:
        corpus: Texts, in which SMILES have their tags.
        vocab_size: Maximum size; special tokens and the 256 bytes come first, ``<mol>`` last.
        phrases: Phrases that get one token each, in addition to ``vocab_size``; default: none.
    """
    tokenizer = untrained_galactica_tokenizer(phrases)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((mark_sequences(text) for text in corpus), trainer)
    if phrases is not None:
        tokenizer.model = _add_phrases(tokenizer, phrases)
    return as_moltc_tokenizer(tokenizer)


def _add_phrases(tokenizer: Tokenizer, phrases: PhraseVocabulary) -> Any:
    """Return the tokenizer's model with a token for each phrase, which no merge produces."""
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(trained["vocab"])
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in phrases.texts:
        ((byte_text, _),) = to_bytes.pre_tokenize_str(text)
        vocabulary.setdefault(byte_text, len(vocabulary))
    merges = [tuple(merge) for merge in trained["merges"]]
    return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True)


def as_moltc_tokenizer(tokenizer: Tokenizer) -> MoltcTokenizer:
    """Wrap a tokenizer with Galactica's rules as `MoltcTokenizer`.

    ``<mol>`` is added as the last token; special tokens and the chat template are set.
    """
    wrapped = MoltcTokenizer(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        # Cleaning up would rewrite " ." to "." and so change generated answers.
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_tokens([MOLECULE_TOKEN])
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
