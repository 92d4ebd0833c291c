"""Leak checks find what is wrong; each is given something to find."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moltc_vllm.data import leaks
from moltc_vllm.data.build import Options, build
from moltc_vllm.data.check_build import check_build
from moltc_vllm.data.dataset import Row
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.holdout import Holdout, Place
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.leaks import Told, check_sources, compare
from moltc_vllm.data.splits import Parts, read_parts
from moltc_vllm.tasks import get_task
from tests.data.small import read

ALL = tuple(DATASETS)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    build(small, out, Options(pairs=30))
    return out


@pytest.fixture
def built(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "built")


def failed(checks):
    return {one.name: one.found for one in checks if one.failed}


def edit(built, stem, change):
    """Change the first record of a shard, and give the manifest its new checksum."""
    path = built / f"{stem}-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    manifest = json.loads((built / "manifest.json").read_text())
    for shard in manifest["shards"]:
        if shard["name"] == path.name:
            shard["sha256"] = sha256(path)
    (built / "manifest.json").write_text(json.dumps(manifest))
    return rows[0]


def test_nothing_is_wrong_with_what_was_built(small, built):
    checks = list(check_build(built, small))
    assert not failed(checks)
    assert all(one.checked for one in checks)


def test_nothing_is_wrong_with_the_data_sets(small):
    checks = list(check_sources(ALL, small))
    assert not failed(checks)
    assert min(one.checked for one in checks) > 10


def test_splits_that_do_not_look_at_other_sets(small, monkeypatch):
    """As the files' own splits are: FreeSolv's test pairs are in CombiSolv's train part."""

    def naive(names, folder):
        from moltc_vllm.data.dataset import read_split_rows

        found = {}
        for name in names:
            source = DATASETS[name]
            rows = {"train": [], "valid": [], "test": []}
            for split, row in read_split_rows(folder / source.file, get_task(source.task)):
                rows[split].append(row)
            found[name] = Parts(source, rows, {})
        return found

    monkeypatch.setattr(leaks, "read_parts", naive)
    exact, flat = failed(check_sources(ALL, small)).values()
    for found in (exact, flat):
        assert any("combisolv_exp row" in line and "tells freesolv row" in line for line in found)


def test_order_and_spelling_do_not_hide_a_pair():
    held = Holdout()
    held.add("interactions", ("OCC", "C"), Place("chchminer", 3, "test"))
    pairs = {("C", "CCO"): 1, ("C(O)C", "C"): 1, ("CCO", "CC"): 0}
    for molecules, count in pairs.items():
        one = Told(Place("drugbank86", 1, "train"), molecules, ("types", "interactions"))
        assert len(compare("", [one], held).found) == count
        assert not compare("", [one._replace(reveals=("types",))], held).found
        in_test = one._replace(place=Place("drugbank86", 1, "test"))
        assert not compare("", [in_test], held).found
    valid = Told(Place("zhangddi", 2, "valid"), ("C", "CCO"), ("interactions",))
    assert compare("", [valid], held).found == [
        "zhangddi row 2 (valid) tells chchminer row 3 (test): C, CCO"
    ]


def test_the_later_split_counts():
    held = Holdout()
    for split in ("valid", "test", "train"):
        held.add("x", ("C", "O"), Place("a", 1, split))
    assert held.place("x", ("O", "C")).split == "test"
    assert len(held) == 1
    held.add("x", ("C", "O"), Place("b", 1, "valid"))
    assert held.place("x", ("C", "O"), but_of="b").source == "a"
    assert held.place("x", ("C", "O"), but_of="a") == Place("b", 1, "valid")
    flat = Holdout(flat_key)
    flat.add("x", ("C[C@H](N)O", "O"), Place("a", 1, "test"))
    assert flat.place("x", ("O", "C[C@@H](N)O"))


def test_a_test_pair_among_the_train_records(small, built):
    row = next(row for row in read(DATASETS["freesolv"].file) if row["split"] == "test")
    # In the other order, and not as it is written there.
    smiles = ["[OH2]", row["solute_smiles"]]
    one = edit(built, "combisolv_exp-train", lambda record: record.update(smiles=smiles))
    found = failed(check_build(built, small))
    assert set(found) == {
        "no pair is in two splits here",
        "no pair tells what another one holds back",
        "the same without stereochemistry, across data sets",
    }
    for lines in found.values():
        assert len(lines) == 1
        assert f"combisolv_exp row {one['number']} (train)" in lines[0]
        assert row["solute_smiles"] in lines[0]


TEXTS = "every answer is read back to its target"


@pytest.mark.parametrize(
    ("stem", "change", "said"),
    [
        ("combisolv_exp-train", {"target": "1.0"}, "is not its target 1.0"),
        ("twosides-valid", {"target": '["pain"]'}, 'is not its target ["pain"]'),
        ("chchminer-test", {"target": "7"}, "is not its target 7"),
        ("chchminer-test", {"answer": "They do."}, "its text is not of its properties"),
        (
            "chchminer-test",
            {"answer": "They do.", "text": "They do.", "upper": ""},
            "none of the 2",
        ),
    ],
)
def test_a_text_that_was_changed(small, built, stem, change, said):
    one = edit(built, stem, lambda record: record.update(change))
    found = failed(check_build(built, small))
    assert set(found) == {TEXTS}
    (line,) = found[TEXTS]
    assert line.startswith(f"{one['id']}: ")
    assert said in line


def test_a_value_outside_its_interval(small, built):
    def widen(record):
        value = json.loads(record["target"])
        record["answer"] = (
            "The solvation Gibbs free energy of these two molecules is above 30.0 and below 30.5, "
            f"so the accurate value is {value:.2f};"
        )
        record["text"] = f"{record['upper']}\n{record['answer']}"

    edit(built, "freesolv-test", widen)
    assert list(failed(check_build(built, small))) == [TEXTS]


def test_an_id_that_is_there_twice(small, built):
    present = pq.read_table(built / "combisolv_exp-train-00000.parquet")["id"][0].as_py()
    edit(built, "freesolv-test", lambda record: record.update(id=present))
    found = failed(check_build(built, small))
    assert found == {"every record has an id of its own": [f"{present} is there again"]}


def test_a_solubility_that_was_told(small, built):
    held = {row["solute_smiles"] for row in read(DATASETS["solubility"].file)
            if row["split"] == "test" and row["solvent_smiles"] == "O"}  # fmt: skip
    solute = sorted(held & {row["smiles"] for row in read("prop_esol.csv.gz")})[0]
    log_s = {"name": "log_s", "value": 0.0, "unit": "", "text": "It is 0."}
    edit(
        built,
        "pairs-train",
        lambda record: record.update(smiles=[solute, "C"], properties=[[log_s], []]),
    )
    (found,) = failed(check_build(built, small)).values()
    assert f"log_s of {solute} tells solubility row" in found[0]


def test_a_solubility_beside_its_answer(small, built):
    log_s = {"name": "log_s", "value": 0.0, "unit": "", "text": "It is 0."}
    edit(
        built,
        "solubility-train",
        lambda record: record.update(properties=[[log_s], []]),
    )
    (found,) = failed(check_build(built, small)).values()
    assert "is its own answer" in found[0]


def test_a_shard_that_was_changed(small, built):
    path = built / "freesolv-test-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert failed(check_build(built, small)) == {
        "every shard is as the manifest has it": [f"{path.name} was changed"]
    }
    path.unlink()
    with pytest.raises(DataError, match=f"{path.name} cannot be read"):
        list(check_build(built, small))


def test_a_wrong_count_of_unseen_molecules(small, tmp_path):
    out = tmp_path / "built"
    build(small, out, Options(pairs=0, split_by="molecule", fraction=0.2))
    assert not failed(check_build(out, small))
    one = edit(out, "combisolv_qm-test", lambda record: record.update(unseen=3 - record["unseen"]))
    found = failed(check_build(out, small))
    assert found == {
        "every record's count of unseen molecules is true": [
            f"{one['id']} has {3 - one['unseen']} unseen, not {one['unseen']}"
        ]
    }


@pytest.mark.parametrize("manifest", [None, "{", "[]", "{}"])
def test_no_folder_of_instructions(small, tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match=r"no folder of instructions|is damaged"):
        list(check_build(tmp_path, small))


def test_parts_of_the_small_data(small):
    """The checks have something to find here: rows that another set holds back."""
    parts = read_parts(ALL, small)
    assert parts["combisolv_exp"].held_back["train"] > 0
    assert isinstance(parts["combisolv_exp"].rows["train"][0], Row)
