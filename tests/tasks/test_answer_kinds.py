"""Classes, lists of terms and free text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.tasks import TASKS, Choice, Label, Terms, Text, UnparsedError

SIDE_EFFECTS = TASKS["ddi_side_effects"].kind
assert isinstance(SIDE_EFFECTS, Terms)
CHOICES = [task.kind for task in TASKS.values() if isinstance(task.kind, Choice)]

term = st.text(st.characters(codec="utf-8", exclude_characters=",."), min_size=1).map(
    lambda text: " ".join(text.split())
)


@pytest.mark.parametrize("kind", CHOICES, ids=lambda kind: f"{len(kind.labels)} labels")
def test_choice_round_trips_every_label(kind: Choice) -> None:
    for label in kind.labels:
        for text in (kind.write(label.id), f" \n{label.text.upper()} ", label.text.lower()):
            fields = kind.parse(text)
            assert (fields.label_id, fields.label) == (label.id, label.name)


@pytest.mark.parametrize("kind", CHOICES, ids=lambda kind: f"{len(kind.labels)} labels")
def test_choice_parses_only_the_whole_text(kind: Choice) -> None:
    for label in kind.labels:
        for text in (label.text[:-1], f"Perhaps {label.text}", f"{label.text} {label.text}"):
            with pytest.raises(UnparsedError, match="matches none of the"):
                kind.parse(text)


def test_choice_distinguishes_negated_sentence() -> None:
    kind = TASKS["ddi"].kind
    no = kind.parse("#Drug1 and #Drug2 do not exhibit drug-drug interaction.")
    yes = kind.parse("#Drug1 and #Drug2 exhibit drug-drug interaction.")
    assert (no.label_id, no.label) == (0, "no_interaction")
    assert (yes.label_id, yes.label) == (1, "interaction")


def test_choice_rejects_unknown_label() -> None:
    with pytest.raises(ValueError, match="unknown label 2; known labels: 0, 1"):
        TASKS["ddi"].write(2)


def test_choice_rejects_equal_labels() -> None:
    with pytest.raises(ValueError, match="same text"):
        Choice((Label(0, "a", "x"), Label(1, "b", "x")))


@given(st.lists(term.filter(bool), min_size=1, unique=True))
def test_terms_round_trip(terms: list[str]) -> None:
    kind = Terms(SIDE_EFFECTS.prefix)
    assert kind.parse(kind.write(terms)).items == tuple(terms)


@given(st.lists(st.sampled_from(SIDE_EFFECTS.vocabulary), min_size=1, unique=True))
def test_terms_of_vocabulary_round_trip_in_any_case(terms: list[str]) -> None:
    text = SIDE_EFFECTS.write(terms)
    assert SIDE_EFFECTS.parse(text).items == tuple(terms)
    assert SIDE_EFFECTS.parse(text.upper()).items == tuple(terms)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ("nausea, Headachea", "'Headachea': not among the 963 known terms"),
        ("pleural paindrop, nausea, numb ache", "'pleural paindrop' and 1 more: not among"),
        ("nauseapain", "'nauseapain': not among"),
    ],
)
def test_terms_rejects_terms_that_are_not_in_the_vocabulary(terms: str, reason: str) -> None:
    with pytest.raises(UnparsedError, match=reason):
        SIDE_EFFECTS.parse(f"{SIDE_EFFECTS.prefix}{terms}.")
    answer = TASKS["ddi_side_effects"].parse_answer(f"{SIDE_EFFECTS.prefix}{terms}.")
    assert (answer.status, answer.items) == ("unparsed", None)
    with pytest.raises(ValueError, match="is not one of the 963 known terms"):
        SIDE_EFFECTS.write(terms.split(", "))


def test_unknown_term_that_was_cut_off_is_dropped() -> None:
    text = f"{SIDE_EFFECTS.prefix}nausea, Pain, blood pressure decr"
    assert SIDE_EFFECTS.parse(text).items == ("nausea", "Pain")


def test_vocabulary_is_not_in_the_checksum_of_manifests() -> None:
    """Screens of side effects that version 0.1 started record a checksum of this text."""
    expected = "Terms(prefix='The side effects of these two drugs are ', separator=', ')"
    assert repr(SIDE_EFFECTS) == expected


def test_terms_writes_sentence() -> None:
    text = SIDE_EFFECTS.write(["nausea", "High  blood pressure"])
    assert text == "The side effects of these two drugs are nausea, High blood pressure."


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        (" the side effects of these two drugs are Nausea,pain .", ("nausea", "Pain")),
        ("The side effects of these two drugs are pain, nausea, Pain.", ("Pain", "nausea")),
        ("The side effects of these two drugs are pain, nausea, low blo", ("Pain", "nausea")),
        ("The side effects of these two drugs are pain, , nausea.", ("Pain", "nausea")),
    ],
)
def test_terms_parses_irregular_texts(text: str, terms: tuple[str, ...]) -> None:
    assert SIDE_EFFECTS.parse(text).items == terms


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start with"),
        ("pain, nausea.", "does not start with"),
        ("The side effects of these two drugs are", "no complete term"),
        ("The side effects of these two drugs are .", "no complete term"),
        ("The side effects of these two drugs are pai", "no complete term"),
    ],
)
def test_terms_rejects_text_without_terms(text: str, reason: str) -> None:
    with pytest.raises(UnparsedError, match=reason):
        SIDE_EFFECTS.parse(text)


@pytest.mark.parametrize("terms", [[], [""], ["pain, severe"], ["pain."]])
def test_terms_rejects_terms_that_cannot_be_parsed(terms: list[str]) -> None:
    with pytest.raises(ValueError, match="term"):
        SIDE_EFFECTS.write(terms)


def test_text_strips_and_rejects_empty() -> None:
    assert Text().write(" An alcohol.\n") == "An alcohol."
    assert Text().parse("anything").items is None
    with pytest.raises(UnparsedError, match="empty"):
        Text().parse(" \n")
    with pytest.raises(ValueError, match="the text is empty"):
        Text().write(" ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The mole\ufffdcule is", r"contains '\\ufffd', which is not text"),
        ("\x00\x01", "which is not text"),
        ("\ufffd\ufffd", "contains no word"),
        ("An alcohol <mol>", "contains '<mol>'"),
        ("[START_I_SMILES]CCO", r"contains '\[START_I_SMILES\]'"),
        ("... (-) ;", "contains no word"),
        ("an acid an acid an acid an acid an acid an acid", "ends in repetitions of 'an acid'"),
        ("It is a a a a a a", "ends in repetitions of 'a'"),
    ],
)
def test_text_rejects_what_is_no_answer(text: str, reason: str) -> None:
    with pytest.raises(UnparsedError, match=reason):
        Text().parse(text)
    assert TASKS["ask"].parse_answer(text).status == "unparsed"


@pytest.mark.parametrize(
    "text",
    [
        "An alcohol.\n\tIt is \N{GREEK SMALL LETTER BETA}-D-glucose, C6H12O6 (180.16 g/mol).",
        "no no no no no",  # five times may be an answer
        "a a a a a a b",
        "7",
        "An alcohol, cut off within a character\ufffd",
    ],
)
def test_text_accepts_readable_texts(text: str) -> None:
    Text().parse(text)
