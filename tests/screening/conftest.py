"""Two small libraries with some rows that cannot be answered."""

import pytest

from tests.screening.screens import LEFT, RIGHT


@pytest.fixture
def left(tmp_path):
    """File of 13 rows, of which row 4 has too many columns and the last is a bad molecule."""
    path = tmp_path / "left.csv"
    rows = [f"{smiles},molecule {number}" for number, smiles in enumerate(LEFT, 1)]
    rows.insert(3, "broken,row,here")
    path.write_text("\n".join(["smiles,name", *rows]))
    return path


@pytest.fixture
def right(tmp_path):
    """File of 7 rows, of which one has no molecule; a column is called ``status``."""
    path = tmp_path / "right.csv"
    rows = [f"{number},{smiles},x" for number, smiles in enumerate(RIGHT)]
    path.write_text("\n".join(["id,solvent_smiles,status", *rows]))
    return path
