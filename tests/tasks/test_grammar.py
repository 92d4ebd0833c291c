"""What the tasks write is what their grammars allow, for Python's `re` and for vLLM's xgrammar."""

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
    """The task's grammar over a vocabulary of single bytes, as vLLM compiles it."""
    grammar = TASKS[name].grammar()
    assert grammar is not None
    vocabulary = ["</s>", *map(chr, range(32, 127))]
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[0]))
    if grammar.kind == "regex":
        return compiler.compile_regex(str(grammar.value))
    choices = " | ".join(f'"{text}"' for text in grammar.value)
    return compiler.compile_grammar(f"root ::= {choices}")


def accepts(name: str, text: str) -> bool:
    """Whether the whole text is an answer and the end may follow."""
    matcher = xgrammar.GrammarMatcher(compiled(name))
    return matcher.accept_string(text) and matcher.accept_token(0)


@pytest.mark.parametrize("task", CONSTRAINED, ids=lambda task: task.name)
def test_examples_are_allowed(task: Task) -> None:
    for text in task.kind.examples():
        assert accepts(task.name, text), text
        assert not accepts(task.name, text[:-1]), "an answer that is cut off is not one"
        assert not accepts(task.name, text + "x")


def test_choices_are_the_texts_of_the_labels() -> None:
    for task in CONSTRAINED:
        if isinstance(task.kind, Choice):
            grammar = task.grammar()
            assert grammar is not None
            assert grammar.kind == "choice"
            assert grammar.value == tuple(label.text for label in task.kind.labels)


@pytest.mark.parametrize("task", NUMERIC, ids=lambda task: task.name)
@given(data=st.data())
def test_written_numbers_are_allowed(task: Task, data: st.DataObject) -> None:
    grammar = task.grammar()
    assert isinstance(task.kind, Number)
    assert grammar is not None
    low, high = task.kind.bounds
    text = task.write(data.draw(st.floats(low, high) | st.integers(low, high)))
    assert re.fullmatch(str(grammar.value), text)
    assert accepts(task.name, text)


@pytest.mark.parametrize("task", NUMERIC, ids=lambda task: task.name)
@given(data=st.data())
def test_whatever_is_allowed_can_be_read(task: Task, data: st.DataObject) -> None:
    grammar = task.grammar()
    assert grammar is not None
    text = data.draw(st.from_regex(str(grammar.value), fullmatch=True))
    answer = task.answer(text)
    assert answer.status == "ok", answer.error
    assert accepts(task.name, text)


@pytest.mark.parametrize(
    ("name", "interval", "value"),
    [
        ("solvation", "-4.5 and below -4.5", "-4.27"),  # empty
        ("solvation", "-4.5 and below -3.5", "-4.27"),  # two intervals
        ("solvation", "-4.3 and below -3.8", "-4.27"),  # no multiple of the width
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
def test_other_numbers_are_not_allowed(name: str, interval: str, value: str) -> None:
    text = TASKS[name].write(400 if name == "absorption" else 0.5)
    head = text.partition("above ")[0] + "above "
    changed = f"{head}{interval}, so the accurate value is {value};"
    grammar = TASKS[name].grammar()
    assert grammar is not None
    assert not re.fullmatch(str(grammar.value), changed)
    assert not accepts(name, changed)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 4000))
def test_integers_are_exactly_the_range(one: int, other: int, probe: int) -> None:
    low, high = sorted((one, other))
    pattern = re.compile(integers(low, high))
    for number in {probe, low, high, max(low - 1, 0), high + 1}:
        assert bool(pattern.fullmatch(str(number))) == (low <= number <= high)
    assert not pattern.fullmatch("0" + str(high)), "no leading zeros"


def test_integers_needs_a_range() -> None:
    with pytest.raises(ValueError, match="no integers from 3 to 2"):
        integers(3, 2)


@given(st.text(st.characters(codec="ascii")))
def test_literal_matches_itself(text: str) -> None:
    assert re.fullmatch(literal(text), text)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 3))
def test_decimals_are_exactly_those_between(a, b, digits):
    low, high = sorted((a, b))
    pattern = re.compile(decimals(low, high, digits))
    for number in {0, low - 1, low, low + 1, (low + high) // 2, high - 1, high, high + 1, 3001}:
        if number >= 0:
            text = f"{number // 10**digits}.{number % 10**digits:0{digits}}"
            assert bool(pattern.fullmatch(text)) == (low <= number <= high), text


def test_a_value_outside_its_own_interval_is_not_allowed():
    grammar = re.compile(TASKS["solvation"].grammar().value)
    form = (
        "The solvation Gibbs free energy of these two molecules is above {} and below {}, "
        "so the accurate value is {};"
    )
    for good in [("-4.5", "-4.0", "-4.50"), ("-4.5", "-4.0", "-4.01"), ("7.5", "8.0", "7.99")]:
        assert grammar.fullmatch(form.format(*good))
    for bad in [("-4.5", "-4.0", "-4.00"), ("-4.5", "-4.0", "-4.51"), ("7.5", "8.0", "37.27")]:
        assert not grammar.fullmatch(form.format(*bad))
