"""The style that shows graphs alone."""

import pytest

from moltc_vllm.tasks import TASKS, PromptError, get_style, get_task, task_asked_in

STYLE = get_style("moltc-graph")


def test_a_prompt_is_placeholders_and_the_question():
    composed = STYLE.compose(get_task("ddi"), ["CCO", "O"])
    assert composed.text == "<mol><mol>Do these two drugs interact?\n"
    assert composed.order == (0, 1)
    asked = STYLE.compose(get_task("ask"), ["CCO"], " What is it? ")
    assert asked.text == "<mol>What is it?\n"
    with pytest.raises(PromptError):
        STYLE.compose(get_task("ddi"), ["CCO"])


def test_chat_and_typed_prompts_come_to_the_same():
    question = get_task("solvation").question
    composed = STYLE.compose(get_task("solvation"), ["CCO", "O"]).text
    chat = STYLE.compose_chat(["CCO", "O"], f" {question} ")
    assert chat.text + "\n" == composed  # the template ends the line
    typed = f"{STYLE.markup('CCO')} {STYLE.markup('O')} {question}\n"
    assert STYLE.tidy(typed) == composed
    assert get_style("moltc").tidy(typed) == typed
    assert get_style("moltc-2024").tidy(typed) == typed


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.question])
def test_a_question_tells_its_task(name):
    for style in ("moltc", "moltc-graph"):
        roles = get_task(name).roles
        text = get_style(style).compose(get_task(name), ["CCO"] * len(roles)).text
        assert task_asked_in(text) is get_task(name)


def test_other_questions_tell_none():
    assert task_asked_in("Is it blue?") is None
