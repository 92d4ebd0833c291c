"""Trees of possible answers: every answer is in them, and only what is decided parts."""

import random

import pytest

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.models.answer_trie import TrieNode, answer_trie
from moltc_vllm.models.checkpoint import load_tokenizer
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.tasks import get_task


def answers(fork, before=()):
    if not fork.children:
        yield list(before)
    for token, place in fork.children.items():
        yield from answers(place, (*before, token))


def test_only_forks_are_decided():
    tree = TrieNode()
    for one in ([1, 2, 3, 9], [1, 2, 4, 5, 9], [1, 2, 4, 6, 7, 9]):
        tree.add(one)
    tokens, place = tree.forced_prefix()
    assert tokens == [1, 2]
    assert set(place.children) == {3, 4}
    assert place.children[3].forced_prefix()[0] == [9]
    tokens, place = place.children[4].forced_prefix()
    assert (tokens, set(place.children)) == ([], {5, 6})
    tokens, end = place.children[6].forced_prefix()
    assert (tokens, end.children) == ([7, 9], {})


@pytest.fixture(scope="module", params=["words", "phrases"])
def tokenizer(request, tiny):
    """One that writes labels in words, and one that has a token for each."""
    return load_tokenizer(tiny if request.param == "words" else shipped_checkpoint())


@pytest.mark.parametrize("name", ["ddi", "ddi_type"])
def test_every_label_is_an_answer(tokenizer, name):
    task = get_task(name)
    found = list(answers(answer_trie(task, tokenizer)))
    assert len(found) == len(task.kind.labels)
    assert all(tokens[-1] == tokenizer.eos_token_id for tokens in found)
    texts = {tokenizer.decode(tokens[:-1]) for tokens in found}
    assert texts == {label.text for label in task.kind.labels}


def test_numbers_are_their_intervals_where_these_are_tokens(tokenizer):
    task = get_task("solvation")
    tree, scale = answer_trie(task, tokenizer), interval_vocabulary(task, tokenizer)
    if scale is not None:
        assert list(answers(tree)) == [[token] for token in scale.tokens.tolist()]


@pytest.mark.parametrize("name", ["solvation", "absorption", "quantum_yield"])
def test_elsewhere_only_their_digits_are_decided(tiny, name):
    tokenizer = load_tokenizer(tiny)
    kind = get_task(name).kind
    rng = random.Random(name)
    for value in [rng.uniform(*kind.bounds) for _ in range(30)]:
        text = kind.write(value)
        wanted = tokenizer.encode(text, add_special_tokens=False)
        tree = answer_trie(get_task(name), tokenizer)
        found, place = tree.forced_prefix()
        decided = ""
        while place.children:
            token = wanted[len(found)]
            decided += tokenizer.decode([token])
            more, place = place.children[token].forced_prefix()
            found += [token, *more]
        assert found == wanted
        assert set(decided) <= set("-.0123456789 ")
        assert len(decided) < 12


def test_numbers_of_too_many_values_have_no_tree(tiny):
    assert answer_trie(get_task("lifetime"), load_tokenizer(tiny)) is None


def test_the_texts_of_an_interval_are_its_values():
    kind = get_task("solvation").kind
    for lower, upper in ((-0.5, 0.0), (0.0, 0.5), (39.5, 40.0), (40.0, 40.5)):
        texts = list(kind.texts(lower, upper))
        assert len(texts) == kind.count(lower, upper) == (1 if lower == 40.0 else 50)
        assert len(set(texts)) == len(texts)
        for text in texts:
            fields = kind.parse(text)
            assert fields.interval == (lower, upper)
            assert lower <= fields.value < upper


def test_other_tasks_have_no_tree(tokenizer):
    assert answer_trie(get_task("ask"), tokenizer) is None
    assert answer_trie(get_task("ddi_side_effects"), tokenizer) is None
