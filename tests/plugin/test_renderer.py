"""Molecules in plain text."""

import pytest
from vllm.exceptions import VLLMValidationError

from moltc_vllm.plugin.server.renderer import _join, take_molecules

A = "[START_I_SMILES]{}[END_I_SMILES]"


def test_takes_molecules_in_order():
    text, molecules = take_molecules(f"x {A.format(' CCO ')} y {A.format('O')}", "prompt")
    assert [m.smiles for m in molecules] == ["CCO", "O"]
    assert text == f"x {A.format('CCO')}<mol> y {A.format('O')}<mol>"


def test_text_without_molecules_is_left_alone():
    assert take_molecules("no [START_SMILES]C[END_SMILES] here", "prompt") == (
        "no [START_SMILES]C[END_SMILES] here",
        [],
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<mol>", "<mol> is reserved"),
        (f"{A.format('C')}<mol>", "<mol> is reserved"),
        (A.format("C<mol>"), "<mol> is reserved"),
        ("[START_I_SMILES]C", r"\[START_I_SMILES\] has no partner"),
        ("C[END_I_SMILES]", r"\[END_I_SMILES\] has no partner"),
        (f"[START_I_SMILES]{A.format('C')}", r"\[START_I_SMILES\] has no partner"),
        (f"{A.format('C')}[END_I_SMILES]", r"\[END_I_SMILES\] has no partner"),
    ],
)
def test_reserved_tokens_are_refused_by_name(text, reason):
    with pytest.raises(VLLMValidationError, match=reason) as error:
        take_molecules(text, "messages[0].content")
    assert error.value.parameter == "messages[0].content"


def test_join_puts_one_space_where_there_is_none():
    assert _join(["a", "b", " c", "d\n", "e", ""]) == "a b c d\ne"
