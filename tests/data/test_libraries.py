"""Libraries: every molecule once, whatever file it is in."""

import gzip

import pytest

from moltc_vllm.data import DataError
from moltc_vllm.data.libraries import LIBRARIES, read_libraries, read_molecules


def test_lines_and_columns(tmp_path):
    (tmp_path / "a.smi").write_text("CCO ethanol\n\n  C\tmethane\n")
    (tmp_path / "b.smi.gz").write_bytes(gzip.compress(b"CC\nCCO\n"))
    (tmp_path / "c.csv").write_text("name,smiles\nwater,O\nnothing,\n")
    found = [list(read_molecules(tmp_path / name)) for name in ("a.smi", "b.smi.gz", "c.csv")]
    assert found == [["CCO", "C"], ["CC", "CCO"], ["O"]]


def test_each_molecule_once(small):
    found = read_libraries(small)
    assert len(found) == len(set(found))
    every = [one for file in LIBRARIES for one in read_molecules(small / file)]
    assert set(found) == set(every)
    assert len(found) < len(every)


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


# No time of packing inside: two test processes must name these cases alike.
WHOLE = gzip.compress(b"C\n" * 99, mtime=0)


@pytest.mark.parametrize(
    "content",
    [None, b"no gzip", WHOLE[:-9], flipped(WHOLE, 12)],
    ids=["missing", "not packed", "cut off", "one byte changed"],
)
def test_a_damaged_library_is_named(tmp_path, content):
    path = tmp_path / "bad.smi.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"^bad\.smi\.gz cannot be read: ") as caught:
        list(read_molecules(path))
    assert len(str(caught.value).splitlines()) == 1
