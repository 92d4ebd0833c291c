"""Prompt styles of the published code, compared character by character."""

import json

import pytest

from moltc_vllm.tasks import TASKS, GenerationLimits, PromptError, TokenLogprob, get_style, get_task
from moltc_vllm.tasks.confidence import tokens_between
from tests.paths import reference_dir

A, B = "CCO", "O=C=O"
P = "[START_I_SMILES]{}[END_I_SMILES]<mol>. "
PA, PB = P.format(A), P.format(B)
CURRENT_STYLE, EARLY_STYLE = get_style("moltc-2024"), get_style("moltc-2024-early")


@pytest.mark.parametrize(
    ("task", "smiles", "question", "current", "early"),
    [
        (
            "ddi",
            (A, B),
            None,
            f"</s> {PA} </s> </s>{PB} </s> . What are the side effects of these two drugs?",
            f"{PA}The front is the first molecule, followed by the second molecule.{PB}"
            "What are the side effects of these two drugs?",
        ),
        (
            "solvation",
            (B, A),  # solute, solvent
            None,
            f"</s> {PA} </s> </s>{PB} </s> . what is the solvation Gibbs free energy of this pair "
            "of molecules?",
            f"{PA}The front is solvent, followed by solute.{PB},what is the solvation Gibbs free "
            "energy of this pair of molecules?",
        ),
        (
            "emission",
            (A, B),
            None,
            f"</s> {PA} </s> </s>{PB} </s> . What is the Emission max?",
            f"{PA}The front is the chromophore, followed by the solvent.{PB}"
            "What is the Emission max?",
        ),
        (
            "pair_properties",
            (A, B),
            None,
            f"</s> {PA} </s> </s> {PB} </s>",
            f"{PA},The front is the first molecule, followed by the second molecule:{PB}.Please "
            "provide the biochemical properties of the two molecules one by one.",
        ),
        (
            "ask",
            (A, B),
            " Which one boils first? ",
            f"</s> {PA} </s> </s>{PB} </s> . Which one boils first?",
            f"{PA}The front is the first molecule, followed by the second molecule.{PB}"
            "Which one boils first?",
        ),
        ("caption", (A,), None, PA, PA),
    ],
)
def test_compose_fills_published_templates(task, smiles, question, current, early):
    for style, expected in ((CURRENT_STYLE, current), (EARLY_STYLE, early)):
        assert style.compose(get_task(task), smiles, question).text == expected


def test_compose_reproduces_prompts_of_reference_fixture():
    prompts = {
        "ddi": ("ddi", (0, 1)),
        "solve": ("solvation", (1, 0)),
        "chromophore": ("emission", (0, 1)),
        "pretrain": ("pair_properties", (0, 1)),
    }
    rows = [json.loads(line) for line in (reference_dir() / "expected.jsonl").open()]
    compared = 0
    for row in rows:
        if row["task"] not in prompts:
            continue
        task, order = prompts[row["task"]]
        blank = "" if row["task"] == "pretrain" else " "
        style = get_style("moltc-2024", f"[START_I_SMILES]{{}}[END_I_SMILES].{blank}")
        written = (row["smiles1"], row["smiles2"])
        composed = style.compose(get_task(task), [written[index] for index in order])
        assert composed.text.replace("<mol>", "") == row["raw_prompt"]
        assert composed.order == order
        compared += 1
    assert compared == 35
    assert any(len(row["smiles1"]) > 128 for row in rows)


def test_compose_truncates_long_smiles():
    smiles = "C" * 126 + "[C@@H](N)O"
    text = CURRENT_STYLE.compose(get_task("ddi"), (smiles, "O")).text
    assert "C" * 126 + "[C[END_I_SMILES]<mol>. " in text
    assert CURRENT_STYLE.markup(smiles) == f"[START_I_SMILES]{smiles[:128]}[END_I_SMILES]<mol>"
    assert get_style("moltc").markup(smiles) == f"[START_I_SMILES]{smiles}[END_I_SMILES]<mol>"


def test_compose_rejects_tasks_without_template():
    with pytest.raises(PromptError, match="takes two molecules, not 3"):
        CURRENT_STYLE.compose(get_task("ask"), ("C", "O", "N"), "Which?")
    with pytest.raises(PromptError, match="'properties' has no prompt in style 'moltc-2024'"):
        CURRENT_STYLE.compose(get_task("properties"), ("C",))
    with pytest.raises(PromptError, match="takes 2 molecule"):
        CURRENT_STYLE.compose(get_task("ddi"), ("C",))
    assert set(TASKS) - set(CURRENT_STYLE.tasks()) == {"properties", "ddi_biosnap"}
    assert get_style("moltc").tasks() == list(TASKS)
    for name in CURRENT_STYLE.tasks():
        task = get_task(name)
        molecules = ["C", "O"][: max(len(task.roles), 2 if task.any_molecules else 1)]
        CURRENT_STYLE.compose(task, molecules, "Why?" if task.takes_question else None)


@pytest.mark.parametrize(
    ("name", "prompt", "reason"),
    [
        ("moltc-2025", None, "unknown prompt style 'moltc-2025'"),
        ("moltc", "[START_I_SMILES]{}[END_I_SMILES]", "does not use a molecule prompt"),
        ("moltc-2024", "SMILES: {}", "needs one {} between"),
        ("moltc-2024", "{} [START_I_SMILES]{}[END_I_SMILES]", "needs one {} between"),
        ("moltc-2024", "[START_I_SMILES]{}[END_I_SMILES]" * 2, "needs one {} between"),
    ],
)
def test_get_style_rejects_invalid_arguments(name, prompt, reason):
    with pytest.raises(ValueError, match=reason):
        get_style(name, prompt)


def test_compose_chat_fills_template_for_pair_and_question():
    assert CURRENT_STYLE.compose_chat((A, B), "Why?").text == f"</s> {PA} </s> </s>{PB} </s> . Why?"
    assert EARLY_STYLE.compose_chat((A, B), "Why?").text.startswith(f"{PA}The front is the first")
    assert CURRENT_STYLE.compose_chat((A,), "Why?") is None
    assert CURRENT_STYLE.compose_chat((A, B), " ") is None
    assert get_style("moltc").compose_chat((A, B), "Why?") is None


def test_limits_exclude_start_token():
    assert CURRENT_STYLE.limits(get_task("ddi")) == GenerationLimits(29, 7, length_offset=1)
    assert CURRENT_STYLE.limits(get_task("solvation")) == GenerationLimits(39, 7, length_offset=1)
    assert CURRENT_STYLE.limits(get_task("pair_properties")) == GenerationLimits(
        255, 7, length_offset=1
    )
    assert get_style("moltc").limits(get_task("ddi")) == GenerationLimits(64)


def test_clean_equals_transformers_clean_up():
    from transformers import PreTrainedTokenizerBase

    text = " It 's a b , c . Is n't it ? I 'm ! we 've you 're ' x ' \n"
    clean = PreTrainedTokenizerBase.clean_up_tokenization
    assert CURRENT_STYLE.clean(text) == clean(None, text).strip()  # the method does not use `self`
    assert CURRENT_STYLE.clean(text) == "It's a b, c. Isn't it? I'm! we've you're'x'"
    assert get_style("moltc").clean(text) == text


@pytest.mark.parametrize("style", [CURRENT_STYLE, EARLY_STYLE])
def test_read_finds_answer_within_longer_text(style):
    text = (
        "The first is a salt.  The second is an acid. The solvation Gibbs free energy of these two "
        "molecules is above -4.5 and below -4.0, so the accurate value is -4.21; so the accurate"
    )
    answer = style.read(get_task("solvation"), text)
    assert (answer.status, answer.value, answer.likeliest_interval) == ("ok", -4.21, (-4.5, -4.0))
    assert answer.text == text
    both = "#Drug1 and #Drug2 do not exhibit drug-drug interaction.\n #Drug1 and #Drug2 exhibit d"
    assert style.read(get_task("ddi"), both).label == "no_interaction"
    then = "It is an acid. #drug1 and #drug2 exhibit  drug-drug interaction. #Drug1 and #Drug2 do"
    assert style.read(get_task("ddi"), then).label == "interaction"
    assert style.read(get_task("ddi"), "#Drug1 and #Drug2 exhibit").status == "unparsed"
    free = style.read(get_task("ask"), "anything; at all")
    assert (free.status, free.text) == ("ok", "anything; at all")


def test_read_accepts_empty_interval():
    text = (
        "The solvation Gibbs free energy of these two molecules is above -4.0 and below -4.0, "
        "so the accurate value is -4.00;"
    )
    answer = CURRENT_STYLE.read(get_task("solvation"), text)
    assert (answer.value, answer.likeliest_interval) == (-4.0, (-4.0, -4.0))


def test_read_computes_confidence_of_answer_tokens():
    words = [
        "It",
        " is",
        ".",
        " #Drug1 and #Drug2",
        " exhibit drug-drug",
        " interaction.",
        " Mo",
        "re",
    ]
    logprobs = [-1.0, -1.0, -1.0, -0.25, -0.25, -0.5, -3.0, -3.0]
    tokens = [TokenLogprob(w, p) for w, p in zip(words, logprobs, strict=True)]
    answer = CURRENT_STYLE.read(get_task("ddi"), "".join(words), tokens)
    assert answer.confidence == pytest.approx(2.718281828459045**-1.0)


def test_tokens_between_returns_overlapping_tokens():
    tokens = [TokenLogprob(text, 0.0) for text in ("ab", " cd", "ef", " g")]
    text = "ab cdef g"

    def between(start, end):
        return [t.text for t in tokens_between(text, tokens, start, end)]

    assert between(0, len(text)) == ["ab", " cd", "ef", " g"]
    assert between(0, 2) == ["ab"]
    assert between(3, 5) == [" cd"]
    assert between(4, 6) == [" cd", "ef"]  # both overlap the span
    assert between(5, 9) == ["ef", " g"]
    assert between(8, 9) == [" g"]
    assert tokens_between("other", tokens, 0, 2) == tokens
