"""One-line error messages."""

import pytest

from moltc_vllm.utils.errors import one_line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("two\n  lines\tand a tab "), "two lines and a tab"),
        ("a text", "a text"),
        (KeyError("key"), "'key'"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_one_line_collapses_white_space_or_names_the_type(error, message):
    assert one_line(error) == message
