"""The answer trie: it holds every answer, and only real choices branch."""

import random

import pytest

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.models.answer_trie import TrieNode, answer_trie
from moltc_vllm.models.checkpoint import load_tokenizer
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.tasks import get_task


def all_answers(node, prefix=()):
    if not node.children:
        yield list(prefix)
    for token, child in node.children.items():
        yield from all_answers(child, (*prefix, token))


def test_forced_prefix_ends_at_next_choice():
    root = TrieNode()
    for answer in ([1, 2, 3, 9], [1, 2, 4, 5, 9], [1, 2, 4, 6, 7, 9]):
        root.add(answer)
    tokens, node = root.forced_prefix()
    assert tokens == [1, 2]
    assert set(node.children) == {3, 4}
    assert node.children[3].forced_prefix()[0] == [9]
    tokens, node = node.children[4].forced_prefix()
    assert (tokens, set(node.children)) == ([], {5, 6})
    tokens, end = node.children[6].forced_prefix()
    assert (tokens, end.children) == ([7, 9], {})


@pytest.fixture(scope="module", params=["words", "phrases"])
def tokenizer(request, tiny):
    """A tokenizer that spells labels in words, and one with a token for each label."""
    return load_tokenizer(tiny if request.param == "words" else shipped_checkpoint())


@pytest.mark.parametrize("name", ["ddi", "ddi_type"])
def test_label_trie_holds_every_label(tokenizer, name):
    task = get_task(name)
    answers = list(all_answers(answer_trie(task, tokenizer)))
    assert len(answers) == len(task.kind.labels)
    assert all(tokens[-1] == tokenizer.eos_token_id for tokens in answers)
    texts = {tokenizer.decode(tokens[:-1]) for tokens in answers}
    assert texts == {label.text for label in task.kind.labels}


def test_number_trie_holds_interval_tokens_alone(tokenizer):
    task = get_task("solvation")
    trie, intervals = answer_trie(task, tokenizer), interval_vocabulary(task, tokenizer)
    if intervals is not None:
        assert list(all_answers(trie)) == [[token] for token in intervals.token_ids.tolist()]


@pytest.mark.parametrize("name", ["solvation", "absorption", "quantum_yield"])
def test_number_trie_without_interval_tokens_branches_at_digits_only(tiny, name):
    tokenizer = load_tokenizer(tiny)
    kind = get_task(name).kind
    rng = random.Random(name)
    for value in [rng.uniform(*kind.bounds) for _ in range(30)]:
        text = kind.write(value)
        expected = tokenizer.encode(text, add_special_tokens=False)
        trie = answer_trie(get_task(name), tokenizer)
        tokens, node = trie.forced_prefix()
        chosen_text = ""
        while node.children:
            token = expected[len(tokens)]
            chosen_text += tokenizer.decode([token])
            forced, node = node.children[token].forced_prefix()
            tokens += [token, *forced]
        assert tokens == expected
        assert set(chosen_text) <= set("-.0123456789 ")
        assert len(chosen_text) < 12


def test_number_with_too_many_values_has_no_trie(tiny):
    assert answer_trie(get_task("lifetime"), load_tokenizer(tiny)) is None


def test_interval_texts_are_its_values():
    kind = get_task("solvation").kind
    for lower, upper in ((-0.5, 0.0), (0.0, 0.5), (39.5, 40.0), (40.0, 40.5)):
        texts = list(kind.texts(lower, upper))
        assert len(texts) == kind.count(lower, upper) == (1 if lower == 40.0 else 50)
        assert len(set(texts)) == len(texts)
        for text in texts:
            fields = kind.parse(text)
            assert fields.interval == (lower, upper)
            assert lower <= fields.value < upper


def test_task_with_free_text_has_no_trie(tokenizer):
    assert answer_trie(get_task("ask"), tokenizer) is None
    assert answer_trie(get_task("ddi_side_effects"), tokenizer) is None
