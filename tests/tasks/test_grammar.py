"""Grammars match exactly the answers that tasks write, for Python's `re` and vLLM's xgrammar."""

import re
from functools import cache

import pytest
import xgrammar
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.tasks import TASKS, Choice, Number, Task
from moltc_vllm.tasks.grammar import decimals, integers, literal

CONSTRAINED = [task for task in TASKS.values() if task.grammar() is not None]
NUMERIC = [task for task in CONSTRAINED if isinstance(task.kind, Number)]


@cache
def compiled(name: str) -> xgrammar.CompiledGrammar:
    """Compile a task's grammar as vLLM does, for a vocabulary of single bytes."""
    grammar = TASKS[name].grammar()
    assert grammar is not None
    vocabulary = ["</s>", *map(chr, range(32, 127))]
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[0]))
    if grammar.kind == "regex":
        return compiler.compile_regex(str(grammar.value))
    choices = " | ".join(f'"{text}"' for text in grammar.value)
    return compiler.compile_grammar(f"root ::= {choices}")


def accepts(name: str, text: str) -> bool:
    """Return whether the grammar accepts the text followed by the end token."""
    matcher = xgrammar.GrammarMatcher(compiled(name))
    return matcher.accept_string(text) and matcher.accept_token(0)


@pytest.mark.parametrize("task", CONSTRAINED, ids=lambda task: task.name)
def test_grammar_accepts_examples(task: Task) -> None:
    for text in task.kind.examples():
        assert accepts(task.name, text), text
        assert not accepts(task.name, text[:-1]), "a truncated answer must be rejected"
        assert not accepts(task.name, text + "x")


def test_choice_grammar_lists_label_texts() -> None:
    for task in CONSTRAINED:
        if isinstance(task.kind, Choice):
            grammar = task.grammar()
            assert grammar is not None
            assert grammar.kind == "choice"
            assert grammar.value == tuple(label.text for label in task.kind.labels)


@pytest.mark.parametrize("task", NUMERIC, ids=lambda task: task.name)
@given(data=st.data())
def test_grammar_accepts_written_numbers(task: Task, data: st.DataObject) -> None:
    grammar = task.grammar()
    assert isinstance(task.kind, Number)
    assert grammar is not None
    low, high = task.kind.bounds
    text = task.write(data.draw(st.floats(low, high) | st.integers(low, high)))
    assert re.fullmatch(str(grammar.value), text)
    assert accepts(task.name, text)


@pytest.mark.parametrize("task", NUMERIC, ids=lambda task: task.name)
@given(data=st.data())
def test_grammar_allows_only_parseable_texts(task: Task, data: st.DataObject) -> None:
    grammar = task.grammar()
    assert grammar is not None
    text = data.draw(st.from_regex(str(grammar.value), fullmatch=True))
    answer = task.parse_answer(text)
    assert answer.status == "ok", answer.error
    assert accepts(task.name, text)


@pytest.mark.parametrize(
    ("name", "interval", "value"),
    [
        ("solvation", "-4.5 and below -4.5", "-4.27"),  # empty
        ("solvation", "-4.5 and below -3.5", "-4.27"),  # two intervals
        ("solvation", "-4.3 and below -3.8", "-4.27"),  # not a multiple of the width
        ("solvation", "-4.5 and below -4.0", "-4.2"),
        ("solvation", "-4.5 and below -4.0", "-04.27"),
        ("solvation", "-4.5 and below -4.0", "-80.01"),
        ("solvation", "-4.5 and below -4.0", "40.01"),
        ("absorption", "410.0 and below 420.0", "99.9"),
        ("absorption", "410.0 and below 420.0", "2000.1"),
        ("quantum_yield", "0.3 and below 0.4", "-0.300"),
        ("quantum_yield", "0.3 and below 0.4", "1.001"),
    ],
)
def test_grammar_rejects_other_numbers(name: str, interval: str, value: str) -> None:
    text = TASKS[name].write(400 if name == "absorption" else 0.5)
    head = text.partition("above ")[0] + "above "
    changed = f"{head}{interval}, so the accurate value is {value};"
    grammar = TASKS[name].grammar()
    assert grammar is not None
    assert not re.fullmatch(str(grammar.value), changed)
    assert not accepts(name, changed)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 4000))
def test_integers_matches_exactly_the_range(first: int, second: int, probe: int) -> None:
    low, high = sorted((first, second))
    pattern = re.compile(integers(low, high))
    for number in {probe, low, high, max(low - 1, 0), high + 1}:
        assert bool(pattern.fullmatch(str(number))) == (low <= number <= high)
    assert not pattern.fullmatch("0" + str(high)), "leading zeros must be rejected"


def test_integers_rejects_empty_range() -> None:
    with pytest.raises(ValueError, match="no integers from 3 to 2"):
        integers(3, 2)


@given(st.text(st.characters(codec="ascii")))
def test_literal_matches_itself(text: str) -> None:
    assert re.fullmatch(literal(text), text)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 3))
def test_decimals_matches_exactly_the_range(a, b, digits):
    low, high = sorted((a, b))
    pattern = re.compile(decimals(low, high, digits))
    for number in {0, low - 1, low, low + 1, (low + high) // 2, high - 1, high, high + 1, 3001}:
        if number >= 0:
            text = f"{number // 10**digits}.{number % 10**digits:0{digits}}"
            assert bool(pattern.fullmatch(text)) == (low <= number <= high), text


def test_grammar_rejects_value_outside_its_interval():
    grammar = re.compile(TASKS["solvation"].grammar().value)
    template = (
        "The solvation Gibbs free energy of these two molecules is above {} and below {}, "
        "so the accurate value is {};"
    )
    for accepted in [("-4.5", "-4.0", "-4.50"), ("-4.5", "-4.0", "-4.01"), ("7.5", "8.0", "7.99")]:
        assert grammar.fullmatch(template.format(*accepted))
    for rejected in [("-4.5", "-4.0", "-4.00"), ("-4.5", "-4.0", "-4.51"), ("7.5", "8.0", "37.27")]:
        assert not grammar.fullmatch(template.format(*rejected))
