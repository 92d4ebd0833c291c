"""One-line error messages for commands, logs and answers."""

from __future__ import annotations


def one_line(error: object) -> str:
    """Return an error's message on one line, with runs of white space collapsed.

    Args:
        error: Exception or text.

    Returns:
        The message, or the name of the exception's type if the message is empty.
    """
    message = " ".join(str(error).split())
    return message or type(error).__name__
