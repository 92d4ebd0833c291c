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
    """Tokens from their texts and probabilities."""
    return [TokenLogprob(text, math.log(probability)) for text, probability in pieces]


def test_a_label_has_the_probability_of_its_sentence() -> None:
    pieces = tokens(("#Drug1 and #Drug2", 1.0), (" exhibit", 0.8), (YES[25:], 0.5), ("</s>", 1.0))
    assert TASKS["ddi"].answer(YES, pieces).confidence == pytest.approx(0.4)


def test_a_number_has_the_probability_of_its_interval() -> None:
    pieces = tokens(
        (HEAD, 1.0),
        (" -4", 0.5),
        (".5 and below -4.", 0.8),
        ("0,", 0.9),  # overlaps the end of the interval
        (" so the accurate value is -4.", 0.1),
        ("27;", 0.1),
        ("</s>", 0.1),
    )
    assert TASKS["solvation"].answer(NUMBER, pieces).confidence == pytest.approx(0.36)


@pytest.mark.parametrize("lead", ["", " ", "\n"])
def test_blanks_and_end_markers_do_not_move_the_interval(lead: str) -> None:
    split = NUMBER.index(", so")
    pieces = tokens((lead + NUMBER[:split], 0.7), (NUMBER[split:], 0.1), ("</s>", 0.2))
    answer = TASKS["solvation"].answer(f"  {NUMBER} ", pieces)
    assert answer.confidence == pytest.approx(0.7)


@pytest.mark.parametrize("unreadable", ["\ufffd", ""])
def test_tokens_that_do_not_add_up_all_count(unreadable: str) -> None:
    split = NUMBER.index(", so")
    pieces = tokens((NUMBER[:split], 0.7), (unreadable, 0.5), (NUMBER[split + 3 :], 0.1))
    assert TASKS["solvation"].answer(NUMBER, pieces).confidence == pytest.approx(0.035)


@given(st.data())
def test_the_interval_is_found_however_the_text_is_cut(data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(NUMBER)), max_size=20))
    edges = sorted({0, *cuts, len(NUMBER)})
    pieces = tokens(*((NUMBER[a:b], 0.9) for a, b in pairwise(edges)))
    inside = sum(edge < NUMBER.index(", so") for edge in edges[:-1])
    assert TASKS["solvation"].answer(NUMBER, pieces).confidence == pytest.approx(0.9**inside)


def test_lists_and_texts_have_the_mean_of_their_tokens() -> None:
    text = "The side effects of these two drugs are pain."
    pieces = tokens((text[:20], 0.9), (text[20:], 0.4))
    assert TASKS["ddi_side_effects"].answer(text, pieces).confidence == pytest.approx(0.6)
    assert TASKS["caption"].answer(text, pieces).confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [([], None), ([math.nan], None), ([-math.inf], 0.0), ([1e-7], 1.0)],
)
def test_odd_log_probabilities(logprobs: list[float], confidence: float | None) -> None:
    pieces = [TokenLogprob(YES, logprob) for logprob in logprobs]
    assert TASKS["ddi"].answer(YES, pieces).confidence == confidence


def test_an_unparsed_answer_has_none() -> None:
    assert TASKS["ddi"].answer("Perhaps.", tokens(("Perhaps.", 0.9))).confidence is None
