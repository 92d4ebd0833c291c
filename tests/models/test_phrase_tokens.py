"""Phrase tokens: answers are few tokens, texts survive a round trip, grammars accept the tokens."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moltc_vllm.models.phrase_tokens import phrase_vocabulary
from moltc_vllm.models.tokenizer import (
    SPECIAL_TOKENS,
    SPLIT_MARKER,
    MoltcTokenizer,
    train_tokenizer,
)
from moltc_vllm.tasks import TASKS, Choice, Number, get_task

RESERVED = (SPLIT_MARKER, "[START_", *SPECIAL_TOKENS)
NUMBERS = [name for name, task in TASKS.items() if isinstance(task.kind, Number)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    corpus = [text for task in TASKS.values() for text in task.examples()]
    trained = train_tokenizer(corpus, 1200, phrase_vocabulary(TASKS.values()))
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save_pretrained(folder)
    return MoltcTokenizer.from_pretrained(folder)


def pieces(tokenizer, text):
    return [tokenizer.decode([token]) for token in tokenizer.encode(text)]


def test_label_is_one_token(tokenizer):
    for task in TASKS.values():
        if isinstance(task.kind, Choice):
            tokens = [tokenizer.encode(label.text) for label in task.kind.labels]
            assert all(len(ids) == 1 for ids in tokens)
            assert len({ids[0] for ids in tokens}) == len(tokens)


def test_number_is_interval_token_and_few_digits(tokenizer):
    start = "The solvation Gibbs free energy of these two molecules is above "
    assert pieces(tokenizer, get_task("solvation").write(-4.27)) == [
        f"{start}-4.5 and below -4.0",
        ", so the accurate value is -4.2",
        "7;",
    ]
    assert len(tokenizer.encode(get_task("absorption").write(423.5))) == 3
    assert len(tokenizer.encode(get_task("quantum_yield").write(0.123))) == 5
    assert len(tokenizer.encode(get_task("lifetime").write(12.345))) == 5


def test_question_after_molecules_is_one_token(tokenizer):
    prompt = "<mol><mol>" + get_task("ddi").question + "\n"
    placeholder = tokenizer.convert_tokens_to_ids("<mol>")
    assert tokenizer.encode(prompt)[:2] == [placeholder, placeholder]
    assert len(tokenizer.encode(prompt)) == 3


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(NUMBERS), fraction=st.floats(0, 1))
def test_number_text_survives_round_trip(tokenizer, name, fraction):
    low, high = get_task(name).kind.bounds
    text = get_task(name).write(low + fraction * (high - low))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=40))
def test_any_text_survives_round_trip(tokenizer, text):
    assume(not any(reserved in text for reserved in RESERVED))
    text = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", ["solvation", "quantum_yield", "ddi_type"])
def test_grammar_accepts_phrase_tokens(tokenizer, name):
    import xgrammar

    task = get_task(name)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
    compiler = xgrammar.GrammarCompiler(info)
    grammar = task.grammar()
    if grammar.kind == "regex":
        compiled = compiler.compile_regex(grammar.value)
    else:
        compiled = compiler.compile_grammar(
            "root ::= " + " | ".join(f'"{text}"' for text in grammar.value)
        )
    for text in task.kind.examples():
        matcher = xgrammar.GrammarMatcher(compiled)
        assert all(matcher.accept_token(token) for token in tokenizer.encode(text)), text
        assert matcher.accept_token(tokenizer.eos_token_id)
