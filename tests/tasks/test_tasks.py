"""Tasks, their prompts and the task table."""

import pytest

from moltc_vllm.tasks import (
    RESERVED_TOKENS,
    TASKS,
    Choice,
    Number,
    PromptError,
    Task,
    UnknownTaskError,
    find_task_by_question,
    get_task,
    molecule_markup,
    resolve_task,
)

ETHANOL = "[START_I_SMILES]CCO[END_I_SMILES]<mol>"
WATER = "[START_I_SMILES]O[END_I_SMILES]<mol>"


def test_prompt_of_pair() -> None:
    assert molecule_markup("CCO") == ETHANOL
    assert TASKS["solvation"].prompt(["CCO", "O"]) == (
        f"{ETHANOL} {WATER} What is the solvation Gibbs free energy of this pair of molecules?\n"
    )


def test_prompt_of_one_molecule() -> None:
    assert TASKS["caption"].prompt(["CCO"]) == f"{ETHANOL} Describe this molecule.\n"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ask_accepts_any_number_of_molecules(count: int) -> None:
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
def test_prompt_rejects_arguments_that_do_not_fit(
    name: str, smiles: list[str], question: str | None, reason: str
) -> None:
    with pytest.raises(PromptError, match=reason):
        TASKS[name].prompt(smiles, question)


@pytest.mark.parametrize("token", RESERVED_TOKENS)
def test_ask_rejects_reserved_tokens_in_question(token: str) -> None:
    with pytest.raises(PromptError) as caught:
        TASKS["ask"].prompt(["O"], f"What is {token}?")
    assert token in str(caught.value)


def test_tasks_lists_all_tasks() -> None:
    assert list(TASKS) == [
        *("ddi", "ddi_biosnap", "ddi_type", "ddi_side_effects", "solvation", "solubility"),
        *("absorption", "emission", "lifetime", "quantum_yield"),
        *("properties", "pair_properties", "caption", "ask"),
    ]
    symmetric = {name for name, task in TASKS.items() if task.symmetric}
    assert symmetric == {"ddi", "ddi_biosnap", "ddi_side_effects"}
    for name, task in TASKS.items():
        assert get_task(name) is task
        assert task.name == name
        assert bool(task.question) != task.takes_question


def test_questions_and_label_texts_identify_the_task() -> None:
    questions = [task.question for task in TASKS.values() if task.question]
    assert len(set(questions)) == len(questions)
    for task in TASKS.values():
        if task.question:
            assert find_task_by_question(f"{WATER}{WATER} {task.question}\n") is task
    texts = [
        label.text
        for task in TASKS.values()
        if isinstance(task.kind, Choice)
        for label in task.kind.labels
    ]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("checkpoint_tasks", "asked"),
    [
        (["ddi", "ddi_type"], "ddi"),
        (["ddi", "ddi_biosnap"], "ddi_biosnap"),
        (["solvation"], "ddi_biosnap"),
        ([], "ddi_biosnap"),
    ],
)
def test_resolve_task_falls_back_for_older_checkpoints(
    checkpoint_tasks: list[str], asked: str
) -> None:
    assert resolve_task(TASKS["ddi_biosnap"], checkpoint_tasks).name == asked
    assert resolve_task(TASKS["solvation"], checkpoint_tasks).name == "solvation"


def test_fallback_has_labels_of_the_same_numbers_and_names() -> None:
    for task in TASKS.values():
        if task.fallback is not None:
            kinds = task.kind, TASKS[task.fallback].kind
            assert all(isinstance(kind, Choice) for kind in kinds)
            own, other = ([(label.id, label.name) for label in kind.labels] for kind in kinds)
            assert own == other
            assert task.roles == TASKS[task.fallback].roles


@pytest.mark.parametrize(
    ("name", "hint"), [("solvaton", "Did you mean 'solvation'?"), ("DDI-type", "'ddi_type'")]
)
def test_get_task_lists_known_tasks_and_suggests_one(name: str, hint: str) -> None:
    with pytest.raises(UnknownTaskError) as caught:
        get_task(name)
    message = str(caught.value)
    assert hint in message
    assert ", ".join(TASKS) in message


def test_get_task_suggests_nothing_for_dissimilar_name() -> None:
    with pytest.raises(UnknownTaskError, match=r"unknown task 'zzz'\. Known tasks: ddi,"):
        get_task("zzz")


@pytest.mark.parametrize(
    "task", [task for task in TASKS.values() if task.grammar()], ids=lambda task: task.name
)
def test_max_tokens_suffices_for_longest_answer(task: Task) -> None:
    """A byte-level tokenizer needs at most one token per byte, plus the end token."""
    if isinstance(task.kind, Choice):
        longest = max(len(label.text.encode()) for label in task.kind.labels)
    else:
        assert isinstance(task.kind, Number)
        low, high = task.kind.bounds
        texts = [task.write(low + (high - low) * step / 10000) for step in range(10001)]
        # Upper bound: the longest interval text plus the longest value text.
        ends = [text.index(", so") for text in texts]
        longest = max(ends) + max(len(text) - end for text, end in zip(texts, ends, strict=True))
    assert longest < task.max_tokens


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_examples_are_question_and_answers(task: Task) -> None:
    texts = list(task.examples())
    answers = texts[1:] if task.question else texts
    assert not task.question or texts[0] == task.question
    assert all(task.parse_answer(text).status == "ok" for text in answers)


def test_parse_answer_keeps_text() -> None:
    text = TASKS["absorption"].write(423)
    answer = TASKS["absorption"].parse_answer(text)
    assert (answer.task, answer.status, answer.text) == ("absorption", "ok", text)
    assert (answer.value, answer.unit, answer.likeliest_interval) == (423.0, "nm", (420.0, 430.0))


def test_parse_answer_reports_unparsed_text() -> None:
    answer = TASKS["ddi"].parse_answer("Perhaps.")
    assert (answer.status, answer.text, answer.label) == ("unparsed", "Perhaps.", None)
    assert answer.error == "matches none of the 2 possible answers"


def test_failed_answer_has_reason() -> None:
    assert TASKS["ddi"].failed("bad_molecule", "no atoms").error == "no atoms"
    assert TASKS["ddi"].failed("error", "").error == "no reason given"
    assert TASKS["ddi"].failed("unparsed", "cut off", text="#Drug1").text == "#Drug1"


def test_with_direction_names_subject_and_object() -> None:
    task, pair = TASKS["ddi_type"], ("CCO", "O")
    directed = task.with_direction(task.parse_answer(task.write(47)), pair)
    assert (directed.label, directed.subject, directed.object) == ("decrease metabolism", *pair)
    undirected = task.parse_answer(task.write(49))
    assert task.with_direction(undirected, pair) is undirected
    assert undirected.subject is None
    failed = task.failed("error", "too busy")
    assert task.with_direction(failed, pair) is failed
    interacts = TASKS["ddi"].parse_answer(TASKS["ddi"].write(1))
    assert TASKS["ddi"].with_direction(interacts, pair) is interacts


def test_directed_tasks_depend_on_the_order_of_two_molecules() -> None:
    assert {name for name, task in TASKS.items() if task.directed} == {
        *("ddi_type", "solvation", "solubility"),
        *("absorption", "emission", "lifetime", "quantum_yield"),
    }
