"""Beam search: against all answers there are, and against the rules written down for it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.models.beam_search import BeamSearch, Candidate
from moltc_vllm.tasks import Limits

STOP = 0
VOCABULARY = 4


def table_of(seed):
    """Log-probabilities of the next token after every beginning; any beginning has its own."""

    def after(tokens):
        weights = [1 + hash((seed, *tokens, token)) % 1009 for token in range(VOCABULARY)]
        return [math.log(weight / sum(weights)) for weight in weights]

    return after


def search(after, width, limits, penalty=1.0, stop=STOP):
    one = BeamSearch(width, limits, stop, penalty)
    while not one.done:
        rows = []
        for beam in one.open:
            ranked = sorted(enumerate(after(beam.tokens)), key=lambda item: -item[1])
            rows.append([Candidate(*item) for item in ranked[: one.wanted]])
        before = list(one.open)
        parents = one.advance(rows)
        for parent, beam in zip(parents, one.open, strict=False):
            assert beam.tokens[:-1] == before[parent].tokens
    return one.best()


def every_answer(after, limits, penalty=1.0, stop=STOP):
    """All answers within the limits, with their scores."""
    for length in range(limits.max_new_tokens + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            if stop in tokens:
                continue
            total = sum(after(tokens[:i])[token] for i, token in enumerate(tokens))
            if length < limits.max_new_tokens:
                if length < limits.min_new_tokens:
                    continue
                total += after(tokens)[stop]
            divisor = max(length + limits.counted_before, 1) ** penalty
            yield tokens, total / divisor


@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 1))
def test_beams_enough_for_everything_find_the_best_answer(seed, least, before):
    after, limits = table_of(seed), Limits(4, least, before)
    best = search(after, VOCABULARY**4, limits)[0]
    tokens, score = max(every_answer(after, limits), key=lambda one: one[1])
    assert best.score == pytest.approx(score)
    assert best.tokens == tokens
    assert best.stopped == (len(tokens) < 4)


@given(
    st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.0])
)
def test_what_is_found_is_an_answer_with_its_own_score(seed, width, least, penalty):
    after, limits = table_of(seed), Limits(6, least, 1)
    found = search(after, width, limits, penalty)
    scores = dict(every_answer(after, limits, penalty))
    assert 1 <= len(found) <= width
    assert len({one.tokens for one in found}) == len(found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert len(one.tokens) >= least
        assert one.score == pytest.approx(scores[one.tokens])
        assert len(one.logprobs) == len(one.tokens)
        for place, (token, logprob) in enumerate(zip(one.tokens, one.logprobs, strict=True)):
            assert logprob == after(one.tokens[:place])[token]


@given(st.integers(0, 10**6))
def test_without_a_stop_token_only_the_length_ends_it(seed):
    for one in search(table_of(seed), 3, Limits(4), stop=None):
        assert len(one.tokens) == 4
        assert not one.stopped


def written_down(after, width, limits, stop=STOP):
    """The published rules once more, on whole sequences with the token in front."""
    beams, answers = [(0.0, (None,))], []
    while len(beams[0][1]) <= limits.max_new_tokens:
        ranked = []
        for total, sequence in beams:
            for token, logprob in enumerate(after(sequence[1:])):
                if token == stop and len(sequence) <= limits.min_new_tokens:
                    continue
                ranked.append((total + logprob, sequence, token))
        ranked = sorted(ranked, key=lambda one: -one[0])[: 2 * width]
        beams = []
        for rank, (total, sequence, token) in enumerate(ranked):
            if token == stop and rank < width:
                answers.append((total / len(sequence), sequence))
                answers = sorted(answers, key=lambda one: -one[0])[:width]
            elif token != stop and len(beams) < width:
                beams.append((total, (*sequence, token)))
            if len(beams) == width:
                break
        if len(answers) == width and answers[-1][0] >= ranked[0][0] / len(beams[0][1]):
            return answers
    answers += [(total / len(sequence), sequence) for total, sequence in beams]
    return sorted(answers, key=lambda one: -one[0])[:width]


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 3), st.integers(1, 9))
def test_the_rules_are_the_published_ones(seed, width, least, longest):
    after, limits = table_of(seed), Limits(longest, min(least, longest), 1)
    expected = written_down(after, width, limits)
    found = search(after, width, limits)
    assert [one.tokens for one in found] == [sequence[1:] for _, sequence in expected]
    assert [one.score for one in found] == pytest.approx([score for score, _ in expected])


def test_a_stop_token_of_low_rank_is_no_answer():
    one = BeamSearch(2, Limits(9), STOP)
    one.advance([[Candidate(1, -1.0), Candidate(2, -1.1), Candidate(3, -9.0)]])
    # Likeliest two: a stop token and a token; the other beam's stop token comes third.
    one.advance(
        [
            [Candidate(STOP, -0.1), Candidate(1, -0.2), Candidate(2, -8.0)],
            [Candidate(STOP, -0.5), Candidate(1, -0.9), Candidate(2, -8.0)],
        ]
    )
    assert [answer.tokens for answer in one.hypotheses] == [(1,)]
    assert [beam.tokens for beam in one.open] == [(1, 1), (2, 1)]


def test_the_search_ends_when_nothing_better_can_come():
    steps = 0

    def after(tokens):
        nonlocal steps
        steps = max(steps, len(tokens))
        p = [0.9, 0.05, 0.03, 0.02]
        return [math.log(x) for x in p]

    found = search(after, 2, Limits(50), penalty=0.0)  # sums only fall
    assert steps < 4
    assert found[0].tokens == ()


def test_impossible_searches():
    assert BeamSearch(2, Limits(0), STOP).done
    with pytest.raises(ValueError, match="0 beams"):
        BeamSearch(0, Limits(3), STOP)
