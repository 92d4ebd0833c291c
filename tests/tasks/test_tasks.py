import pytest

from moltc_vllm.tasks import (
    RESERVED_TOKENS,
    TASKS,
    Choice,
    Number,
    PromptError,
    Task,
    UnknownTaskError,
    get_task,
    molecule_markup,
)

ETHANOL = "[START_I_SMILES]CCO[END_I_SMILES]<mol>"
WATER = "[START_I_SMILES]O[END_I_SMILES]<mol>"


def test_the_prompt_of_a_pair() -> None:
    assert molecule_markup("CCO") == ETHANOL
    assert TASKS["solvation"].prompt(["CCO", "O"]) == (
        f"{ETHANOL} {WATER} What is the solvation Gibbs free energy of this pair of molecules?\n"
    )


def test_the_prompt_of_one_molecule() -> None:
    assert TASKS["caption"].prompt(["CCO"]) == f"{ETHANOL} Describe this molecule.\n"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ask_takes_any_molecules_and_a_question(count: int) -> None:
    prompt = TASKS["ask"].prompt(["O"] * count, " Do they mix? ")
    assert prompt == " ".join([WATER] * count) + " Do they mix?\n"


@pytest.mark.parametrize(
    ("name", "smiles", "question", "reason"),
    [
        ("solvation", ["CCO"], None, r"takes 2 molecule\(s\) \(solute, solvent\), not 1"),
        ("caption", ["CCO", "O"], None, "takes 1 molecule"),
        ("solvation", ["CCO", "O"], "Do they mix?", "has its own question"),
        ("ask", [], "Do they mix?", "at least one molecule"),
        ("ask", ["O"], None, "question is empty"),
        ("ask", ["O"], " ", "question is empty"),
    ],
)
def test_requests_that_do_not_fit_are_refused(
    name: str, smiles: list[str], question: str | None, reason: str
) -> None:
    with pytest.raises(PromptError, match=reason):
        TASKS[name].prompt(smiles, question)


@pytest.mark.parametrize("token", RESERVED_TOKENS)
def test_a_question_cannot_smuggle_in_a_molecule(token: str) -> None:
    with pytest.raises(PromptError) as caught:
        TASKS["ask"].prompt(["O"], f"What is {token}?")
    assert token in str(caught.value)


def test_the_table() -> None:
    assert list(TASKS) == [
        *("ddi", "ddi_type", "ddi_side_effects", "solvation", "solubility"),
        *("absorption", "emission", "lifetime", "quantum_yield"),
        *("properties", "pair_properties", "caption", "ask"),
    ]
    assert {name for name, task in TASKS.items() if task.symmetric} == {"ddi", "ddi_side_effects"}
    for name, task in TASKS.items():
        assert get_task(name) is task
        assert task.name == name
        assert bool(task.question) != task.takes_question


@pytest.mark.parametrize(
    ("name", "hint"), [("solvaton", "Did you mean 'solvation'?"), ("DDI-type", "'ddi_type'")]
)
def test_an_unknown_task_is_told_which_there_are(name: str, hint: str) -> None:
    with pytest.raises(UnknownTaskError) as caught:
        get_task(name)
    message = str(caught.value)
    assert hint in message
    assert ", ".join(TASKS) in message


def test_a_name_like_no_other_gets_no_hint() -> None:
    with pytest.raises(UnknownTaskError, match=r"unknown task 'zzz'\. There are ddi,"):
        get_task("zzz")


@pytest.mark.parametrize(
    "task", [task for task in TASKS.values() if task.grammar()], ids=lambda task: task.name
)
def test_the_longest_answer_fits(task: Task) -> None:
    """A byte-level tokenizer never needs more tokens than bytes; one more ends the answer."""
    if isinstance(task.kind, Choice):
        longest = max(len(label.text.encode()) for label in task.kind.labels)
    else:
        assert isinstance(task.kind, Number)
        low, high = task.kind.bounds
        texts = [task.write(low + (high - low) * step / 10000) for step in range(10001)]
        # A grammar allows any value with any interval: longest interval plus longest value.
        ends = [text.index(", so") for text in texts]
        longest = max(ends) + max(len(text) - end for text, end in zip(texts, ends, strict=True))
    assert longest < task.max_tokens


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_examples_are_the_question_and_answers(task: Task) -> None:
    texts = list(task.examples())
    answers = texts[1:] if task.question else texts
    assert not task.question or texts[0] == task.question
    assert all(task.answer(text).status == "ok" for text in answers)


def test_an_answer_keeps_its_text() -> None:
    text = TASKS["absorption"].write(423)
    answer = TASKS["absorption"].answer(text)
    assert (answer.task, answer.status, answer.text) == ("absorption", "ok", text)
    assert (answer.value, answer.unit, answer.interval) == (423.0, "nm", (420.0, 430.0))


def test_an_unparsed_answer_keeps_its_text_and_says_why() -> None:
    answer = TASKS["ddi"].answer("Perhaps.")
    assert (answer.status, answer.text, answer.label) == ("unparsed", "Perhaps.", None)
    assert answer.error == "none of the 2 possible answers"


def test_a_failed_answer_always_has_a_reason() -> None:
    assert TASKS["ddi"].failed("bad_molecule", "no atoms").error == "no atoms"
    assert TASKS["ddi"].failed("error", "").error == "no reason given"
    assert TASKS["ddi"].failed("unparsed", "cut off", text="#Drug1").text == "#Drug1"
