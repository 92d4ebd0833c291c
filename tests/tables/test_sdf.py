"""SDF: one record per block, with the data fields as columns."""

from rdkit import Chem

from moltc_vllm.tables import Record, open_table, read_columns


def make_block(smiles, name, fields):
    molecule = Chem.MolFromSmiles(smiles)
    molecule.SetProp("_Name", name)
    data = "".join(f">  <{key}>\n{value}\n\n" for key, value in fields.items())
    return f"{Chem.MolToMolBlock(molecule)}{data}$$$$\n"


def test_sdf_has_a_column_for_every_field(write):
    path = write(
        "a.sdf",
        make_block("OCC", "ethanol", {"logP": "-0.3", "smiles": "wrong"})
        + "rubbish\n$$$$\n"
        + make_block("O", "water", {"id": "1\n2"})
        + make_block("C", "methane", {}).replace("$$$$\n", ""),
    )
    table = open_table(path)
    assert table.columns == ("smiles", "name", "logP", "id")
    assert list(table.records()) == [
        Record(("CCO", "ethanol", "-0.3", "")),
        Record((), "the molecule block has no end (M  END)"),
        Record(("O", "water", "", "1\n2")),
        Record(("C", "methane", "", "")),
    ]


def test_sdf_without_block_ends_is_one_bad_row(write):
    path = write("a.sdf", "name\n" + "x" * 1000 + "\n" + "y" * 100_000 + "\n" * 2)
    (record,) = open_table(path).records()
    assert "no end" in record.error


def test_sdf_block_that_is_too_long_is_one_bad_row(write):
    path = write("a.sdf", ("z" * 100_000 + "\n") * 50)
    (record,) = open_table(path).records()
    assert "the block has more than" in record.error


def test_read_columns_of_sdf(write):
    content = make_block("OCC", "ethanol", {"id": "7"}) + make_block("O", "water", {})
    assert list(read_columns(write("a.sdf", content), ["id", "smiles"])) == [
        ("7", "CCO"),
        ("", "O"),
    ]
