"""JSON texts and files that hold one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moltc_vllm.utils.errors import one_line


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: File to read.

    Raises:
        ValueError: If the file is missing, is not JSON or holds something else; the message is
            one line and names the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or one_line(error)}") from error
    except ValueError as error:  # not UTF-8
        raise ValueError(f"{path} is not JSON: {one_line(error)}") from error
    return parse_json_object(text, str(path))


def parse_json_object(text: str, name: str) -> dict[str, Any]:
    """Parse a JSON text whose top level is an object.

    Args:
        text: Text to parse.
        name: Name of its source, for the error message.

    Raises:
        ValueError: If the text is not JSON or holds something else.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} does not hold a JSON object")
    return content
