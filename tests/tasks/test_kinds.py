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
def test_every_label_is_written_and_read(kind: Choice) -> None:
    for label in kind.labels:
        for text in (kind.write(label.id), f" \n{label.text.upper()} ", label.text.lower()):
            fields = kind.parse(text)
            assert (fields.label_id, fields.label) == (label.id, label.name)


@pytest.mark.parametrize("kind", CHOICES, ids=lambda kind: f"{len(kind.labels)} labels")
def test_a_label_is_its_whole_text(kind: Choice) -> None:
    for label in kind.labels:
        for text in (label.text[:-1], f"Perhaps {label.text}", f"{label.text} {label.text}"):
            with pytest.raises(UnparsedError, match="none of the"):
                kind.parse(text)


def test_not_is_not_overlooked() -> None:
    kind = TASKS["ddi"].kind
    no = kind.parse("#Drug1 and #Drug2 do not exhibit drug-drug interaction.")
    yes = kind.parse("#Drug1 and #Drug2 exhibit drug-drug interaction.")
    assert (no.label_id, no.label) == (0, "no_interaction")
    assert (yes.label_id, yes.label) == (1, "interaction")


def test_an_unknown_label_is_not_written() -> None:
    with pytest.raises(ValueError, match="no label 2; there are 0, 1"):
        TASKS["ddi"].write(2)


def test_labels_differ() -> None:
    with pytest.raises(ValueError, match="same text"):
        Choice((Label(0, "a", "x"), Label(1, "b", "x")))


@given(st.lists(term.filter(bool), min_size=1, unique=True))
def test_terms_are_written_and_read(terms: list[str]) -> None:
    assert SIDE_EFFECTS.parse(SIDE_EFFECTS.write(terms)).items == tuple(terms)


def test_the_sentence_of_the_terms() -> None:
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
def test_terms_are_read_from_loose_texts(text: str, terms: tuple[str, ...]) -> None:
    assert SIDE_EFFECTS.parse(text).items == terms


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with"),
        ("pain, nausea.", "does not begin with"),
        ("The side effects of these two drugs are", "no whole term"),
        ("The side effects of these two drugs are .", "no whole term"),
        ("The side effects of these two drugs are pai", "no whole term"),
    ],
)
def test_texts_without_terms_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UnparsedError, match=reason):
        SIDE_EFFECTS.parse(text)


@pytest.mark.parametrize("terms", [[], [""], ["pain, severe"], ["pain."]])
def test_terms_that_could_not_be_read_are_not_written(terms: list[str]) -> None:
    with pytest.raises(ValueError, match="term"):
        SIDE_EFFECTS.write(terms)


def test_free_text() -> None:
    assert Text().write(" An alcohol.\n") == "An alcohol."
    assert Text().parse("anything").items is None
    with pytest.raises(UnparsedError, match="empty"):
        Text().parse(" \n")
    with pytest.raises(ValueError, match="at least one character"):
        Text().write(" ")
