"""The tokenizer: SMILES by character, single digits, Galactica's ids."""

import copy
import json

import pytest

from moltc_vllm.models import load_tokenizer
from moltc_vllm.models.language_model import load_language_tokenizer
from moltc_vllm.models.tokenizer import SPECIAL_TOKENS, SPLIT_MARKER, mark_sequences
from tests.paths import reference_dir


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny)


def test_mark_sequences_marks_characters_and_end_tag():
    m = SPLIT_MARKER
    assert mark_sequences("a [START_I_SMILES]CO[END_I_SMILES] b") == (
        f"a [START_I_SMILES]{m}C{m}O{m}[END_I_SMILES] b"
    )
    assert mark_sequences("[START_I_SMILES]CO") == "[START_I_SMILES]CO"
    assert mark_sequences(["[START_DNA]AC[END_DNA]", "x"])[0].count(m) == 3


def test_special_token_ids_are_galacticas(tokenizer):
    assert [tokenizer.convert_tokens_to_ids(t) for t in SPECIAL_TOKENS] == list(range(23))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.convert_tokens_to_ids("<mol>") == len(tokenizer) - 1


def test_tokenizer_splits_smiles_and_numbers_into_characters(tokenizer):
    ids = tokenizer("[START_I_SMILES]CC(Cl)=O[END_I_SMILES] 128.50", add_special_tokens=False)
    tokens = tokenizer.convert_ids_to_tokens(ids["input_ids"])
    assert tokens == [
        *("[START_I_SMILES]", "C", "C", "(", "C", "l", ")", "=", "O", "[END_I_SMILES]"),
        *("Ġ", "1", "2", "8", ".", "5", "0"),
    ]


def test_every_tokenizer_method_inserts_markers(tokenizer):
    text = "[START_I_SMILES]CCO[END_I_SMILES]"
    expected = tokenizer(text)["input_ids"]
    assert len(expected) == 5
    assert tokenizer.encode(text) == expected
    assert tokenizer([text, text])["input_ids"] == [expected, expected]
    assert copy.deepcopy(tokenizer)(text)["input_ids"] == expected
    assert copy.copy(tokenizer)(text)["input_ids"] == expected


def test_decoding_keeps_spaces(tokenizer):
    text = "The value is above -3.5 and below -3.0, so it is -3.17; ('x') . Ünïcödé\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chat_template_equals_task_prompt(tokenizer):
    from moltc_vllm.tasks import get_task

    task = get_task("ddi")
    prompt = task.prompt(["CCO", "O"])
    turn = [{"role": "user", "content": prompt.rstrip("\n")}]
    assert tokenizer.apply_chat_template(turn, tokenize=False) == prompt
    turn += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    assert tokenizer.apply_chat_template(turn, tokenize=False) == prompt + "Yes.</s>Why?\n"


def test_token_ids_equal_published_tokenizer():
    folder = reference_dir()
    tokenizer = load_language_tokenizer(folder / "galactica-1.3b")
    rows = [json.loads(line) for line in (folder / "expected.jsonl").open()]
    assert len(rows) == 40
    for row in rows:
        marked = row["raw_prompt"].replace("[END_I_SMILES]", "[END_I_SMILES]" + "<mol>" * 8)
        assert tokenizer(marked, add_special_tokens=False)["input_ids"] == row["input_ids"]
