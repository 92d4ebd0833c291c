"""Libraries of molecules: every molecule once, from files of several formats."""

import gzip

import pytest

from moltc_vllm.data import DataError
from moltc_vllm.data.libraries import LIBRARIES, read_libraries, read_molecules


def test_molecules_of_smiles_files_and_csv_columns(tmp_path):
    (tmp_path / "a.smi").write_text("CCO ethanol\n\n  C\tmethane\n")
    (tmp_path / "b.smi.gz").write_bytes(gzip.compress(b"CC\nCCO\n"))
    (tmp_path / "c.csv").write_text("name,smiles\nwater,O\nnothing,\n")
    molecules = [list(read_molecules(tmp_path / name)) for name in ("a.smi", "b.smi.gz", "c.csv")]
    assert molecules == [["CCO", "C"], ["CC", "CCO"], ["O"]]


def test_libraries_have_each_molecule_once(small):
    molecules = read_libraries(small)
    assert len(molecules) == len(set(molecules))
    repeated = [smiles for file in LIBRARIES for smiles in read_molecules(small / file)]
    assert set(molecules) == set(repeated)
    assert len(molecules) < len(repeated)


def flip_byte(content, index):
    return content[:index] + bytes([content[index] ^ 0xFF]) + content[index + 1 :]


# Without a time stamp, because all test processes must give these cases the same ids.
WHOLE = gzip.compress(b"C\n" * 99, mtime=0)


@pytest.mark.parametrize(
    "content",
    [None, b"\x1f\x8bno gzip", WHOLE[:-9], flip_byte(WHOLE, 12)],
    ids=["missing", "not gzip", "truncated", "one byte changed"],
)
def test_damaged_library_is_named(tmp_path, content):
    path = tmp_path / "bad.smi.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"^bad\.smi\.gz cannot be read: ") as caught:
        list(read_molecules(path))
    assert len(str(caught.value).splitlines()) == 1


def test_file_with_the_suffix_of_gzip_may_be_plain(tmp_path):
    (tmp_path / "a.smi.gz").write_text("CCO ethanol\n")
    assert list(read_molecules(tmp_path / "a.smi.gz")) == ["CCO"]
