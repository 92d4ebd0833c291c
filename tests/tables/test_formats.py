"""File names without the suffixes of their format."""

from pathlib import Path

import pytest

from moltc_vllm.tables.formats import table_stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("pairs.csv", "pairs"),
        ("pairs.csv.gz", "pairs"),
        ("pairs.TSV.zst", "pairs"),
        ("drugs.v2.parquet", "drugs.v2"),
        ("drugs", "drugs"),
    ],
)
def test_stem_has_no_suffix_of_format_or_compression(name, stem):
    assert table_stem(Path("folder") / name) == stem
