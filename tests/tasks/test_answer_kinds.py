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
    assert SIDE_EFFECTS.parse(SIDE_EFFECTS.write(terms)).items == tuple(terms)


def test_terms_writes_sentence() -> None:
    text = SIDE_EFFECTS.write(["nausea", "low  blood pressure"])
    assert text == "The side effects of these two drugs are nausea, low blood pressure."


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        (" the side effects of these two drugs are Nausea,pain .", ("Nausea", "pain")),
        ("The side effects of these two drugs are pain, nausea, pain.", ("pain", "nausea")),
        ("The side effects of these two drugs are pain, nausea, low blo", ("pain", "nausea")),
        ("The side effects of these two drugs are pain, , nausea.", ("pain", "nausea")),
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
