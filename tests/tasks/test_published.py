"""The published prompt styles, to the character."""

import json

import pytest

from moltc_vllm.tasks import TASKS, Limits, PromptError, TokenLogprob, get_style, get_task
from moltc_vllm.tasks.confidence import tokens_between
from tests.paths import reference_dir

A, B = "CCO", "O=C=O"
P = "[START_I_SMILES]{}[END_I_SMILES]<mol>. "
PA, PB = P.format(A), P.format(B)
NOW, EARLY = get_style("moltc-2024"), get_style("moltc-2024-early")


@pytest.mark.parametrize(
    ("task", "smiles", "question", "now", "early"),
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
def test_templates(task, smiles, question, now, early):
    for style, expected in ((NOW, now), (EARLY, early)):
        assert style.compose(get_task(task), smiles, question).text == expected


def test_the_fixtures_prompts_are_made_to_the_character():
    prompts = {
        "ddi": ("ddi", (0, 1)),
        "solve": ("solvation", (1, 0)),
        "chromophore": ("emission", (0, 1)),
        "pretrain": ("pair_properties", (0, 1)),
    }
    rows = [json.loads(line) for line in (reference_dir() / "expected.jsonl").open()]
    seen = 0
    for row in rows:
        if row["task"] not in prompts:
            continue
        task, order = prompts[row["task"]]
        blank = "" if row["task"] == "pretrain" else " "
        style = get_style("moltc-2024", f"[START_I_SMILES]{{}}[END_I_SMILES].{blank}")
        written = (row["smiles1"], row["smiles2"])
        composed = style.compose(get_task(task), [written[place] for place in order])
        assert composed.text.replace("<mol>", "") == row["raw_prompt"]
        assert composed.order == order
        seen += 1
    assert seen == 35
    assert any(len(row["smiles1"]) > 128 for row in rows)


def test_long_smiles_are_cut_in_the_text_even_inside_a_bracket():
    smiles = "C" * 126 + "[C@@H](N)O"
    text = NOW.compose(get_task("ddi"), (smiles, "O")).text
    assert "C" * 126 + "[C[END_I_SMILES]<mol>. " in text
    assert NOW.markup(smiles) == f"[START_I_SMILES]{smiles[:128]}[END_I_SMILES]<mol>"
    assert get_style("moltc").markup(smiles) == f"[START_I_SMILES]{smiles}[END_I_SMILES]<mol>"


def test_what_a_style_cannot_ask_is_named():
    with pytest.raises(PromptError, match="about two molecules"):
        NOW.compose(get_task("ask"), ("C", "O", "N"), "Which?")
    with pytest.raises(PromptError, match="'properties' has no prompt in the style 'moltc-2024'"):
        NOW.compose(get_task("properties"), ("C",))
    with pytest.raises(PromptError, match="takes 2 molecule"):
        NOW.compose(get_task("ddi"), ("C",))
    assert set(TASKS) - set(NOW.tasks()) == {"properties"}
    assert get_style("moltc").tasks() == list(TASKS)
    for name in NOW.tasks():
        task = get_task(name)
        molecules = ["C", "O"][: max(len(task.roles), 2 if task.any_molecules else 1)]
        NOW.compose(task, molecules, "Why?" if task.takes_question else None)


@pytest.mark.parametrize(
    ("name", "prompt", "reason"),
    [
        ("moltc-2025", None, "unknown prompt style 'moltc-2025'"),
        ("moltc", "[START_I_SMILES]{}[END_I_SMILES]", "has no molecule prompt"),
        ("moltc-2024", "SMILES: {}", "needs one {} between"),
        ("moltc-2024", "{} [START_I_SMILES]{}[END_I_SMILES]", "needs one {} between"),
        ("moltc-2024", "[START_I_SMILES]{}[END_I_SMILES]" * 2, "needs one {} between"),
    ],
)
def test_wrong_styles_are_refused(name, prompt, reason):
    with pytest.raises(ValueError, match=reason):
        get_style(name, prompt)


def test_chat_of_two_molecules_and_a_question_is_the_template():
    assert NOW.compose_chat((A, B), "Why?").text == f"</s> {PA} </s> </s>{PB} </s> . Why?"
    assert EARLY.compose_chat((A, B), "Why?").text.startswith(f"{PA}The front is the first")
    assert NOW.compose_chat((A,), "Why?") is None
    assert NOW.compose_chat((A, B), " ") is None
    assert get_style("moltc").compose_chat((A, B), "Why?") is None


def test_lengths_do_not_count_the_token_in_front():
    assert NOW.limits(get_task("ddi")) == Limits(29, 7, counted_before=1)
    assert NOW.limits(get_task("solvation")) == Limits(39, 7, counted_before=1)
    assert NOW.limits(get_task("pair_properties")) == Limits(255, 7, counted_before=1)
    assert get_style("moltc").limits(get_task("ddi")) == Limits(64)


def test_clean_up_is_transformers():
    from transformers import PreTrainedTokenizerBase

    text = " It 's a b , c . Is n't it ? I 'm ! we 've you 're ' x ' \n"
    clean = PreTrainedTokenizerBase.clean_up_tokenization
    assert NOW.clean(text) == clean(None, text).strip()  # it uses nothing of the tokenizer
    assert NOW.clean(text) == "It's a b, c. Isn't it? I'm! we've you're'x'"
    assert get_style("moltc").clean(text) == text


@pytest.mark.parametrize("style", [NOW, EARLY])
def test_answers_are_found_in_texts_that_go_on(style):
    text = (
        "The first is a salt.  The second is an acid. The solvation Gibbs free energy of these two "
        "molecules is above -4.5 and below -4.0, so the accurate value is -4.21; so the accurate"
    )
    answer = style.read(get_task("solvation"), text)
    assert (answer.status, answer.value, answer.interval) == ("ok", -4.21, (-4.5, -4.0))
    assert answer.text == text
    both = "#Drug1 and #Drug2 do not exhibit drug-drug interaction.\n #Drug1 and #Drug2 exhibit d"
    assert style.read(get_task("ddi"), both).label == "no_interaction"
    then = "It is an acid. #drug1 and #drug2 exhibit  drug-drug interaction. #Drug1 and #Drug2 do"
    assert style.read(get_task("ddi"), then).label == "interaction"
    assert style.read(get_task("ddi"), "#Drug1 and #Drug2 exhibit").status == "unparsed"
    free = style.read(get_task("ask"), "anything; at all")
    assert (free.status, free.text) == ("ok", "anything; at all")


def test_published_texts_with_an_interval_of_no_width_are_read():
    text = (
        "The solvation Gibbs free energy of these two molecules is above -4.0 and below -4.0, "
        "so the accurate value is -4.00;"
    )
    answer = NOW.read(get_task("solvation"), text)
    assert (answer.value, answer.interval) == (-4.0, (-4.0, -4.0))


def test_confidence_is_of_the_answers_tokens_only():
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
    answer = NOW.read(get_task("ddi"), "".join(words), tokens)
    assert answer.confidence == pytest.approx(2.718281828459045**-1.0)


def test_tokens_between():
    tokens = [TokenLogprob(text, 0.0) for text in ("ab", " cd", "ef", " g")]
    text = "ab cdef g"

    def between(start, end):
        return [t.text for t in tokens_between(text, tokens, start, end)]

    assert between(0, len(text)) == ["ab", " cd", "ef", " g"]
    assert between(0, 2) == ["ab"]
    assert between(3, 5) == [" cd"]
    assert between(4, 6) == [" cd", "ef"]  # both reach into it
    assert between(5, 9) == ["ef", " g"]
    assert between(8, 9) == [" g"]
    assert tokens_between("other", tokens, 0, 2) == tokens
