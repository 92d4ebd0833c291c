"""Confidence of answers, computed from token probabilities."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.tasks import TASKS, TokenLogprob

YES = "#Drug1 and #Drug2 exhibit drug-drug interaction."
HEAD = "The solvation Gibbs free energy of these two molecules is above"
NUMBER = f"{HEAD} -4.5 and below -4.0, so the accurate value is -4.27;"


def tokens(*pieces: tuple[str, float]) -> list[TokenLogprob]:
    """Build tokens from texts and probabilities."""
    return [TokenLogprob(text, math.log(probability)) for text, probability in pieces]


def test_label_confidence_is_probability_of_its_text() -> None:
    pieces = tokens(("#Drug1 and #Drug2", 1.0), (" exhibit", 0.8), (YES[25:], 0.5), ("</s>", 1.0))
    assert TASKS["ddi"].parse_answer(YES, pieces).confidence == pytest.approx(0.4)


def test_number_confidence_is_probability_of_its_interval() -> None:
    pieces = tokens(
        (HEAD, 1.0),
        (" -4", 0.5),
        (".5 and below -4.", 0.8),
        ("0,", 0.9),  # overlaps the end of the interval
        (" so the accurate value is -4.", 0.1),
        ("27;", 0.1),
        ("</s>", 0.1),
    )
    assert TASKS["solvation"].parse_answer(NUMBER, pieces).confidence == pytest.approx(0.36)


@pytest.mark.parametrize("lead", ["", " ", "\n"])
def test_confidence_ignores_blanks_and_end_tokens(lead: str) -> None:
    split = NUMBER.index(", so")
    pieces = tokens((lead + NUMBER[:split], 0.7), (NUMBER[split:], 0.1), ("</s>", 0.2))
    answer = TASKS["solvation"].parse_answer(f"  {NUMBER} ", pieces)
    assert answer.confidence == pytest.approx(0.7)


@pytest.mark.parametrize("unreadable", ["\ufffd", ""])
def test_confidence_uses_all_tokens_if_they_do_not_match_the_text(unreadable: str) -> None:
    split = NUMBER.index(", so")
    pieces = tokens((NUMBER[:split], 0.7), (unreadable, 0.5), (NUMBER[split + 3 :], 0.1))
    assert TASKS["solvation"].parse_answer(NUMBER, pieces).confidence == pytest.approx(0.035)


@given(st.data())
def test_number_confidence_is_independent_of_token_boundaries(data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(NUMBER)), max_size=20))
    edges = sorted({0, *cuts, len(NUMBER)})
    pieces = tokens(*((NUMBER[a:b], 0.9) for a, b in pairwise(edges)))
    inside = sum(edge < NUMBER.index(", so") for edge in edges[:-1])
    assert TASKS["solvation"].parse_answer(NUMBER, pieces).confidence == pytest.approx(0.9**inside)


def test_list_and_text_confidence_is_geometric_mean() -> None:
    text = "The side effects of these two drugs are pain."
    pieces = tokens((text[:20], 0.9), (text[20:], 0.4))
    assert TASKS["ddi_side_effects"].parse_answer(text, pieces).confidence == pytest.approx(0.6)
    assert TASKS["caption"].parse_answer(text, pieces).confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [([], None), ([math.nan], None), ([-math.inf], 0.0), ([1e-7], 1.0)],
)
def test_confidence_handles_special_log_probabilities(
    logprobs: list[float], confidence: float | None
) -> None:
    pieces = [TokenLogprob(YES, logprob) for logprob in logprobs]
    assert TASKS["ddi"].parse_answer(YES, pieces).confidence == confidence


def test_unparsed_answer_has_no_confidence() -> None:
    assert TASKS["ddi"].parse_answer("Perhaps.", tokens(("Perhaps.", 0.9))).confidence is None
