"""Lines of text files: compressed or plain, in constant memory."""

import gzip
import tracemalloc

import pytest

from moltc_vllm.tables import open_table
from moltc_vllm.tables.streams import Line, find_codec, read_lines, read_start


@pytest.mark.parametrize("content", [b"C\r\nO", gzip.compress(b"C\r\nO", mtime=0)])
def test_read_lines_drops_line_ends(write, content):
    path = write("a.smi", content)
    assert list(read_lines(path)) == [Line("C"), Line("O")]
    assert read_start(path) == b"C\r\nO"
    assert find_codec(path) == (None if content == b"C\r\nO" else "gzip")


def test_long_line_is_one_bad_row_and_not_kept_in_memory(tmp_path):
    path = tmp_path / "a.smi"
    with path.open("wb") as file:
        file.write(b"CCO ethanol\n")
        file.seek(200 << 20, 1)
        file.write(b"\nO water\n")
    table = open_table(path)
    tracemalloc.start()
    records = list(table.records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record.error is None for record in records] == [True, False, True]
    assert peak < 16 << 20
