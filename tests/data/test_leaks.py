"""Leak checks: each check finds a problem that the test introduces."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moltc_vllm.data import leaks
from moltc_vllm.data.build import BuildOptions, build
from moltc_vllm.data.check_build import check_build
from moltc_vllm.data.dataset import Row
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.holdout import Holdout, RowLocation
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.leaks import RecordedPair, check_datasets, find_leaks
from moltc_vllm.data.splits import DatasetSplits, read_splits
from moltc_vllm.tasks import get_task
from tests.data.small import read

ALL = tuple(DATASETS)


@pytest.fixture(scope="module")
def complete_build(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    build(small, out, BuildOptions(pairs=30))
    return out


@pytest.fixture
def built(complete_build, tmp_path):
    return shutil.copytree(complete_build, tmp_path / "built")


def failures(results):
    """Return the findings of the failed checks by name."""
    return {result.name: result.findings for result in results if result.failed}


def edit(built, stem, change):
    """Change the first record of a shard, and update its checksum in the manifest."""
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


def test_complete_build_passes_all_checks(small, built):
    results = list(check_build(built, small))
    assert not failures(results)
    assert all(result.checked for result in results)


def test_data_sets_pass_all_checks(small):
    results = list(check_datasets(ALL, small))
    assert not failures(results)
    assert min(result.checked for result in results) > 10


def test_splits_of_the_files_alone_have_leaks(small, monkeypatch):
    """FreeSolv's test pairs are in CombiSolv's train split."""

    def read_file_splits(names, folder):
        from moltc_vllm.data.dataset import read_split_rows

        datasets = {}
        for name in names:
            spec = DATASETS[name]
            rows = {"train": [], "valid": [], "test": []}
            for split, row in read_split_rows(folder / spec.file, get_task(spec.task)):
                rows[split].append(row)
            datasets[name] = DatasetSplits(spec, rows, {})
        return datasets

    monkeypatch.setattr(leaks, "read_splits", read_file_splits)
    exact, flat = failures(check_datasets(ALL, small)).values()
    for lines in (exact, flat):
        assert any("combisolv_exp row" in line and "reveals freesolv row" in line for line in lines)


def test_leaks_are_found_in_any_order_and_spelling():
    holdout = Holdout()
    holdout.add("interactions", ("OCC", "C"), RowLocation("chchminer", 3, "test"))
    pairs = {("C", "CCO"): 1, ("C(O)C", "C"): 1, ("CCO", "CC"): 0}
    for molecules, count in pairs.items():
        location = RowLocation("drugbank86", 1, "train")
        pair = RecordedPair(location, molecules, ("types", "interactions"))
        assert len(find_leaks("", [pair], holdout).findings) == count
        assert not find_leaks("", [pair._replace(reveals=("types",))], holdout).findings
        in_test = pair._replace(location=RowLocation("drugbank86", 1, "test"))
        assert not find_leaks("", [in_test], holdout).findings
    valid = RecordedPair(RowLocation("zhangddi", 2, "valid"), ("C", "CCO"), ("interactions",))
    assert find_leaks("", [valid], holdout).findings == [
        "zhangddi row 2 (valid) reveals chchminer row 3 (test): C, CCO"
    ]


def test_holdout_finds_the_split_of_highest_rank():
    holdout = Holdout()
    for split in ("valid", "test", "train"):
        holdout.add("x", ("C", "O"), RowLocation("a", 1, split))
    assert holdout.find("x", ("O", "C")).split == "test"
    assert len(holdout) == 1
    holdout.add("x", ("C", "O"), RowLocation("b", 1, "valid"))
    assert holdout.find("x", ("C", "O"), ignore_dataset="b").dataset == "a"
    assert holdout.find("x", ("C", "O"), ignore_dataset="a") == RowLocation("b", 1, "valid")
    flat = Holdout(flat_key)
    flat.add("x", ("C[C@H](N)O", "O"), RowLocation("a", 1, "test"))
    assert flat.find("x", ("O", "C[C@@H](N)O"))


def test_test_pair_in_a_train_record_is_found(small, built):
    row = next(row for row in read(DATASETS["freesolv"].file) if row["split"] == "test")
    # The pair has the other order and another spelling than in the file.
    smiles = ["[OH2]", row["solute_smiles"]]
    record = edit(built, "combisolv_exp-train", lambda record: record.update(smiles=smiles))
    found = failures(check_build(built, small))
    assert set(found) == {
        "no pair is in two splits of the build",
        "no pair reveals a held-out answer",
        "no pair reveals a held-out answer, compared without stereochemistry across data sets",
    }
    for lines in found.values():
        assert len(lines) == 1
        assert f"combisolv_exp row {record['number']} (train)" in lines[0]
        assert row["solute_smiles"] in lines[0]


TEXTS = "every answer parses back to its target"


@pytest.mark.parametrize(
    ("stem", "change", "problem"),
    [
        ("combisolv_exp-train", {"target": "1.0"}, "is not its target 1.0"),
        ("twosides-valid", {"target": '["pain"]'}, 'is not its target ["pain"]'),
        ("chchminer-test", {"target": "7"}, "is not its target 7"),
        ("chchminer-test", {"answer": "They do."}, "its text does not consist of its properties"),
        (
            "chchminer-test",
            {"answer": "They do.", "text": "They do.", "upper": ""},
            "none of the 2",
        ),
    ],
)
def test_changed_text_is_found(small, built, stem, change, problem):
    changed = edit(built, stem, lambda record: record.update(change))
    found = failures(check_build(built, small))
    assert set(found) == {TEXTS}
    (line,) = found[TEXTS]
    assert line.startswith(f"{changed['id']}: ")
    assert problem in line


def test_value_outside_its_interval_is_found(small, built):
    def move_interval(record):
        value = json.loads(record["target"])
        record["answer"] = (
            "The solvation Gibbs free energy of these two molecules is above 30.0 and below 30.5, "
            f"so the accurate value is {value:.2f};"
        )
        record["text"] = f"{record['upper']}\n{record['answer']}"

    edit(built, "freesolv-test", move_interval)
    assert list(failures(check_build(built, small))) == [TEXTS]


def test_repeated_id_is_found(small, built):
    present = pq.read_table(built / "combisolv_exp-train-00000.parquet")["id"][0].as_py()
    edit(built, "freesolv-test", lambda record: record.update(id=present))
    found = failures(check_build(built, small))
    assert found == {"every record has its own id": [f"{present} occurs more than once"]}


def test_held_out_solubility_in_properties_is_found(small, built):
    tested = {row["solute_smiles"] for row in read(DATASETS["solubility"].file)
            if row["split"] == "test" and row["solvent_smiles"] == "O"}  # fmt: skip
    solute = sorted(tested & {row["smiles"] for row in read("prop_esol.csv.gz")})[0]
    log_s = {"name": "log_s", "value": 0.0, "unit": "", "text": "It is 0."}
    edit(
        built,
        "pairs-train",
        lambda record: record.update(smiles=[solute, "C"], properties=[[log_s], []]),
    )
    (found,) = failures(check_build(built, small)).values()
    assert f"log_s of {solute} reveals solubility row" in found[0]


def test_own_answer_in_properties_is_found(small, built):
    log_s = {"name": "log_s", "value": 0.0, "unit": "", "text": "It is 0."}
    edit(
        built,
        "solubility-train",
        lambda record: record.update(properties=[[log_s], []]),
    )
    (found,) = failures(check_build(built, small)).values()
    assert "is the record's own answer" in found[0]


def test_changed_or_missing_shard_is_found(small, built):
    path = built / "freesolv-test-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert failures(check_build(built, small)) == {
        "every shard has its checksum in the manifest": [f"{path.name} was changed"]
    }
    path.unlink()
    with pytest.raises(DataError, match=f"{path.name} cannot be read"):
        list(check_build(built, small))


def test_wrong_number_of_unseen_molecules_is_found(small, tmp_path):
    out = tmp_path / "built"
    build(small, out, BuildOptions(pairs=0, split_by="molecule", fraction=0.2))
    assert not failures(check_build(out, small))
    record = edit(
        out, "combisolv_qm-test", lambda record: record.update(unseen=3 - record["unseen"])
    )
    found = failures(check_build(out, small))
    assert found == {
        "every record's number of unseen molecules is correct": [
            f"{record['id']} has {3 - record['unseen']} unseen, not {record['unseen']}"
        ]
    }


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "is not a folder of instructions: it has no manifest.json"),
        ("{", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "has format None, not 1; build the folder again"),
        ('{"format": 1}', "is damaged; build the folder again"),
    ],
)
def test_missing_or_damaged_manifest_is_an_error(small, tmp_path, manifest, reason):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match=reason):
        list(check_build(tmp_path, small))


def test_small_data_has_held_out_rows(small):
    """Without such rows the checks of the data sets would have nothing to find."""
    dataset = read_splits(ALL, small)["combisolv_exp"]
    assert dataset.held_out["train"] > 0
    assert isinstance(dataset.rows["train"][0], Row)
