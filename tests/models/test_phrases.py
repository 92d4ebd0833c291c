"""PhraseTokens: an answer is a few tokens, every text comes back, and grammars allow the tokens."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moltc_vllm.models.interval_tokens import TokenCandidate, interval_vocabulary
from moltc_vllm.models.phrase_tokens import phrase_tokens_for
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
    made = train_tokenizer(corpus, 1200, phrase_tokens_for(TASKS.values()))
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(folder)
    return MoltcTokenizer.from_pretrained(folder)


def pieces(tokenizer, text):
    return [tokenizer.decode([token]) for token in tokenizer.encode(text)]


def test_labels_are_one_token_each(tokenizer):
    for task in TASKS.values():
        if isinstance(task.kind, Choice):
            tokens = [tokenizer.encode(label.text) for label in task.kind.labels]
            assert all(len(one) == 1 for one in tokens)
            assert len({one[0] for one in tokens}) == len(tokens)


def test_a_number_is_an_interval_and_a_few_digits(tokenizer):
    start = "The solvation Gibbs free energy of these two molecules is above "
    assert pieces(tokenizer, get_task("solvation").write(-4.27)) == [
        f"{start}-4.5 and below -4.0",
        ", so the accurate value is -4.2",
        "7;",
    ]
    assert len(tokenizer.encode(get_task("absorption").write(423.5))) == 3
    assert len(tokenizer.encode(get_task("quantum_yield").write(0.123))) == 5
    assert len(tokenizer.encode(get_task("lifetime").write(12.345))) == 5


def test_questions_are_one_token_behind_the_molecules(tokenizer):
    style_prompt = "<mol><mol>" + get_task("ddi").question + "\n"
    mol = tokenizer.convert_tokens_to_ids("<mol>")
    assert tokenizer.encode(style_prompt)[:2] == [mol, mol]
    assert len(tokenizer.encode(style_prompt)) == 3


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(NUMBERS), share=st.floats(0, 1))
def test_every_number_comes_back(tokenizer, name, share):
    low, high = get_task(name).kind.bounds
    text = get_task(name).write(low + share * (high - low))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=40))
def test_other_texts_come_back_as_well(tokenizer, text):
    assume(not any(reserved in text for reserved in RESERVED))
    text = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", ["solvation", "quantum_yield", "ddi_type"])
def test_the_grammar_allows_the_tokens(tokenizer, name):
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


def test_a_scale_knows_its_intervals(tokenizer):
    scale = interval_vocabulary(get_task("solvation"), tokenizer)
    assert len(scale.tokens) == len(scale.kind.intervals()) == len(set(scale.tokens.tolist()))
    logits = torch.full((2, len(tokenizer)), -30.0)
    for row, values in enumerate([(-4.2, -4.9), (3.1, 3.1)]):
        for value in values:
            token = tokenizer.encode(get_task("solvation").write(value))[0]
            logits[row, token] = 0.0
    # Half in [-4.5, -4), half in [-5, -4.5): the mean is their border.
    assert scale.expected(logits) == pytest.approx([-4.5, 3.25], abs=1e-6)


def test_the_mean_of_the_likeliest_tokens(tokenizer):
    scale = interval_vocabulary(get_task("solvation"), tokenizer)

    def token(value):
        return tokenizer.encode(get_task("solvation").write(value))[0]

    likely = [
        TokenCandidate(token(-4.2), -0.5),
        TokenCandidate(token(-4.9), -0.5),
        TokenCandidate(7, -0.1),
    ]
    assert scale.mean(likely) == -4.5  # what is no interval does not count
    assert scale.mean([TokenCandidate(7, 0.0)]) is None
    assert scale.mean([]) is None


def test_growing_intervals_are_averaged_by_position(tokenizer):
    """As far between 1 and 2 ns as between 1000 and 2000 is in the decade of 50 ns, not at 750."""
    scale = interval_vocabulary(get_task("lifetime"), tokenizer)
    low, high = (tokenizer.encode(get_task("lifetime").write(one))[0] for one in (1.5, 1500.0))
    mean = scale.mean([TokenCandidate(low, -0.7), TokenCandidate(high, -0.7)])
    assert 30 < mean < 70


def test_other_tokenizers_have_no_scale():
    corpus = [text for task in TASKS.values() for text in task.examples()]
    assert interval_vocabulary(get_task("solvation"), train_tokenizer(corpus, 1200)) is None
    assert interval_vocabulary(get_task("ddi"), train_tokenizer(corpus, 600)) is None
