"""JSON files that hold one object."""

import re

import pytest

from moltc_vllm.utils.json_objects import read_json_object


def test_read_json_object_returns_the_object(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"name": "é", "values": [1, null]}', encoding="utf-8")
    assert read_json_object(path) == {"name": "é", "values": [1, None]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, ": No such file or directory"),
        (b"{\n\n", " is not JSON: Expecting property name"),
        (b"\xff", " is not JSON: 'utf-8' codec can't decode"),
        (b"[1]", " does not hold a JSON object"),
    ],
)
def test_read_json_object_names_the_file_in_one_line(tmp_path, content, reason):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}{reason}")) as error:
        read_json_object(path)
    assert len(str(error.value).splitlines()) == 1
