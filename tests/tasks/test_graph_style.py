"""Prompt style without SMILES."""

import pytest

from moltc_vllm.tasks import TASKS, PromptError, find_task_by_question, get_style, get_task

STYLE = get_style("moltc-graph")


def test_compose_has_placeholders_and_question_only():
    composed = STYLE.compose(get_task("ddi"), ["CCO", "O"])
    assert composed.text == "<mol><mol>Do these two drugs interact?\n"
    assert composed.order == (0, 1)
    question = STYLE.compose(get_task("ask"), ["CCO"], " What is it? ")
    assert question.text == "<mol>What is it?\n"
    with pytest.raises(PromptError):
        STYLE.compose(get_task("ddi"), ["CCO"])


def test_chat_and_written_prompts_equal_composed_prompt():
    question = get_task("solvation").question
    composed = STYLE.compose(get_task("solvation"), ["CCO", "O"]).text
    chat = STYLE.compose_chat(["CCO", "O"], f" {question} ")
    assert chat.text + "\n" == composed  # the chat template adds the line break
    written = f"{STYLE.markup('CCO')} {STYLE.markup('O')} {question}\n"
    assert STYLE.tidy(written) == composed
    assert get_style("moltc").tidy(written) == written
    assert get_style("moltc-2024").tidy(written) == written


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.question])
def test_find_task_by_question_finds_each_task(name):
    for style in ("moltc", "moltc-graph"):
        roles = get_task(name).roles
        text = get_style(style).compose(get_task(name), ["CCO"] * len(roles)).text
        assert find_task_by_question(text) is get_task(name)


def test_find_task_by_question_returns_none_for_other_text():
    assert find_task_by_question("Is it blue?") is None
