"""Beam search, compared with exhaustive search and with an independent implementation."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.models.beam_search import BeamSearch, TokenCandidate
from moltc_vllm.tasks import GenerationLimits

STOP = 0
VOCABULARY = 4


def logprob_table(seed):
    """Log-probabilities of the next token, different after every prefix."""

    def next_logprobs(tokens):
        weights = [1 + hash((seed, *tokens, token)) % 1009 for token in range(VOCABULARY)]
        return [math.log(weight / sum(weights)) for weight in weights]

    return next_logprobs


def run_search(next_logprobs, width, limits, penalty=1.0, stop=STOP):
    search = BeamSearch(width, limits, stop, penalty)
    while not search.done:
        candidates = []
        for beam in search.open:
            ranked = sorted(enumerate(next_logprobs(beam.tokens)), key=lambda item: -item[1])
            candidates.append([TokenCandidate(*item) for item in ranked[: search.num_candidates]])
        before = list(search.open)
        parents = search.advance(candidates)
        for parent, beam in zip(parents, search.open, strict=False):
            assert beam.tokens[:-1] == before[parent].tokens
    return search.best()


def all_answers(next_logprobs, limits, penalty=1.0, stop=STOP):
    """All answers within the limits, with their scores."""
    for length in range(limits.max_new_tokens + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            if stop in tokens:
                continue
            total = sum(next_logprobs(tokens[:i])[token] for i, token in enumerate(tokens))
            if length < limits.max_new_tokens:
                if length < limits.min_new_tokens:
                    continue
                total += next_logprobs(tokens)[stop]
            divisor = max(length + limits.length_offset, 1) ** penalty
            yield tokens, total / divisor


@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 1))
def test_exhaustive_beam_search_finds_best_answer(seed, minimum, offset):
    next_logprobs, limits = logprob_table(seed), GenerationLimits(4, minimum, offset)
    best = run_search(next_logprobs, VOCABULARY**4, limits)[0]
    tokens, score = max(all_answers(next_logprobs, limits), key=lambda answer: answer[1])
    assert best.score == pytest.approx(score)
    assert best.tokens == tokens
    assert best.stopped == (len(tokens) < 4)


@given(
    st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.0])
)
def test_hypotheses_are_answers_with_their_own_scores(seed, width, minimum, penalty):
    next_logprobs, limits = logprob_table(seed), GenerationLimits(6, minimum, 1)
    hypotheses = run_search(next_logprobs, width, limits, penalty)
    scores = dict(all_answers(next_logprobs, limits, penalty))
    assert 1 <= len(hypotheses) <= width
    assert len({hypothesis.tokens for hypothesis in hypotheses}) == len(hypotheses)
    ranking = [hypothesis.score for hypothesis in hypotheses]
    assert ranking == sorted(ranking, reverse=True)
    for tokens, logprobs, score, _ in hypotheses:
        assert len(tokens) >= minimum
        assert score == pytest.approx(scores[tokens])
        assert len(logprobs) == len(tokens)
        for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            assert logprob == next_logprobs(tokens[:index])[token]


@given(st.integers(0, 10**6))
def test_search_without_stop_token_ends_at_maximum_length(seed):
    for hypothesis in run_search(logprob_table(seed), 3, GenerationLimits(4), stop=None):
        assert len(hypothesis.tokens) == 4
        assert not hypothesis.stopped


def published_beam_search(next_logprobs, width, limits, stop=STOP):
    """The published rules, independently, on whole sequences including the start token."""
    beams, answers = [(0.0, (None,))], []
    while len(beams[0][1]) <= limits.max_new_tokens:
        ranked = []
        for total, sequence in beams:
            for token, logprob in enumerate(next_logprobs(sequence[1:])):
                if token == stop and len(sequence) <= limits.min_new_tokens:
                    continue
                ranked.append((total + logprob, sequence, token))
        ranked = sorted(ranked, key=lambda extension: -extension[0])[: 2 * width]
        beams = []
        for rank, (total, sequence, token) in enumerate(ranked):
            if token == stop and rank < width:
                answers.append((total / len(sequence), sequence))
                answers = sorted(answers, key=lambda answer: -answer[0])[:width]
            elif token != stop and len(beams) < width:
                beams.append((total, (*sequence, token)))
            if len(beams) == width:
                break
        if len(answers) == width and answers[-1][0] >= ranked[0][0] / len(beams[0][1]):
            return answers
    answers += [(total / len(sequence), sequence) for total, sequence in beams]
    return sorted(answers, key=lambda answer: -answer[0])[:width]


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 3), st.integers(1, 9))
def test_search_follows_published_rules(seed, width, minimum, maximum):
    next_logprobs = logprob_table(seed)
    limits = GenerationLimits(maximum, min(minimum, maximum), 1)
    expected = published_beam_search(next_logprobs, width, limits)
    hypotheses = run_search(next_logprobs, width, limits)
    assert [hypothesis.tokens for hypothesis in hypotheses] == [
        sequence[1:] for _, sequence in expected
    ]
    assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(
        [score for score, _ in expected]
    )


def test_stop_token_ranked_below_width_ends_no_answer():
    search = BeamSearch(2, GenerationLimits(9), STOP)
    search.advance([[TokenCandidate(1, -1.0), TokenCandidate(2, -1.1), TokenCandidate(3, -9.0)]])
    # The best two extensions are a stop token and a token; the other beam's stop token is third.
    search.advance(
        [
            [TokenCandidate(STOP, -0.1), TokenCandidate(1, -0.2), TokenCandidate(2, -8.0)],
            [TokenCandidate(STOP, -0.5), TokenCandidate(1, -0.9), TokenCandidate(2, -8.0)],
        ]
    )
    assert [hypothesis.tokens for hypothesis in search.hypotheses] == [(1,)]
    assert [beam.tokens for beam in search.open] == [(1, 1), (2, 1)]


def test_search_ends_when_no_beam_can_improve():
    steps = 0

    def next_logprobs(tokens):
        nonlocal steps
        steps = max(steps, len(tokens))
        return [math.log(probability) for probability in (0.9, 0.05, 0.03, 0.02)]

    # Without a length penalty scores are sums, which only fall with every token.
    hypotheses = run_search(next_logprobs, 2, GenerationLimits(50), penalty=0.0)
    assert steps < 4
    assert hypotheses[0].tokens == ()


def test_search_without_room_for_tokens_is_done():
    assert BeamSearch(2, GenerationLimits(0), STOP).done


def test_search_without_beams_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        BeamSearch(0, GenerationLimits(3), STOP)
