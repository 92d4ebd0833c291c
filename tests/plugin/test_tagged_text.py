"""Molecules between tags in plain text."""

import pytest
from vllm.exceptions import VLLMValidationError

from moltc_vllm.plugin.server.tagged_text import extract_molecules, join_texts


def tag(smiles):
    return f"[START_I_SMILES]{smiles}[END_I_SMILES]"


def test_extract_molecules_keeps_their_order():
    text, molecules = extract_molecules(f"x {tag(' CCO ')} y {tag('O')}", "prompt")
    assert [spec.smiles for spec in molecules] == ["CCO", "O"]
    assert text == f"x {tag('CCO')}<mol> y {tag('O')}<mol>"


def test_extract_molecules_keeps_text_without_molecules():
    assert extract_molecules("no [START_SMILES]C[END_SMILES] here", "prompt") == (
        "no [START_SMILES]C[END_SMILES] here",
        [],
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<mol>", "<mol> is reserved"),
        (f"{tag('C')}<mol>", "<mol> is reserved"),
        (tag("C<mol>"), "<mol> is reserved"),
        ("[START_I_SMILES]C", r"\[START_I_SMILES\] has no partner"),
        ("C[END_I_SMILES]", r"\[END_I_SMILES\] has no partner"),
        (f"[START_I_SMILES]{tag('C')}", r"\[START_I_SMILES\] has no partner"),
        (f"{tag('C')}[END_I_SMILES]", r"\[END_I_SMILES\] has no partner"),
    ],
)
def test_extract_molecules_rejects_reserved_tokens(text, reason):
    with pytest.raises(VLLMValidationError, match=reason) as error:
        extract_molecules(text, "messages[0].content")
    assert error.value.parameter == "messages[0].content"


def test_join_texts_adds_one_space_where_white_space_is_missing():
    assert join_texts(["a", "b", " c", "d\n", "e", ""]) == "a b c d\ne"
