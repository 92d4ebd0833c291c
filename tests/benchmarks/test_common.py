"""Helpers that the benchmarks share."""

from common import read_smiles


def test_read_smiles_takes_every_smiles_column_and_no_other(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("label,smiles_1,smiles_2\n1,CCO,O\n0,CCN,\n")
    types = tmp_path / "types.csv"
    types.write_text("label,template\n1,#Drug1 and #Drug2\n")
    library = tmp_path / "library.smi"
    library.write_text("CCO ethanol\n\nO water\n")
    assert list(read_smiles(pairs)) == ["CCO", "O", "CCN"]
    assert list(read_smiles(types)) == []
    assert list(read_smiles(library)) == ["CCO", "O"]
