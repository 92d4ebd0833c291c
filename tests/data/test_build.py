"""Built instruction data: texts, bytes, options, interruptions and bad input."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from moltc_vllm.data import DataError
from moltc_vllm.data import build as build_module
from moltc_vllm.data.build import BuildOptions, build
from moltc_vllm.data.check_build import check_build
from moltc_vllm.data.files import sha256
from moltc_vllm.data.instructions import SCHEMA, value_text
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.libraries import read_libraries
from moltc_vllm.data.properties import PROPERTY_NAMES
from moltc_vllm.data.shards import read_manifest, read_records
from moltc_vllm.data.splits import read_splits
from moltc_vllm.tasks import Number, get_task

FEW = ("combisolv_exp", "chchminer", "deep4chem_lifetime")


def checksums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def load(folder):
    return list(read_records(folder))


@pytest.fixture(scope="module")
def built(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    build(small, out, BuildOptions(pairs=60), shard_rows=25)
    return out


def test_build_has_one_record_per_measured_row(small, built):
    datasets = read_splits(BuildOptions().sources, small)
    expected = {
        f"{name}:{row.number}": (split, row)
        for name, dataset in datasets.items()
        for split, rows in dataset.rows.items()
        for row in rows
    }
    records = {record["id"]: record for record in load(built) if record["source"] != "pairs"}
    assert records.keys() == expected.keys()
    assert len(records) > 800
    for name, (split, row) in expected.items():
        record = records[name]
        task = get_task(datasets[record["source"]].spec.task)
        assert (record["split"], record["smiles"]) == (split, list(row.molecules))
        assert (record["task"], record["question"]) == (task.name, task.question)
        assert record["answer"] == task.write(row.target)
        target = json.loads(record["target"])
        assert (tuple(target) if isinstance(target, list) else target) == row.target
        assert record["unseen"] is None


def test_text_is_properties_then_answer_and_parses(built):
    for record in load(built):
        if record["source"] == "pairs":
            continue
        task = get_task(record["task"])
        upper, _, answer = record["text"].rpartition("\n")
        assert upper == record["upper"]
        assert task.parse_answer(answer).status == "ok"
        first, second = (f"{role.capitalize()}: " for role in task.roles)
        assert upper.startswith(first)
        assert upper.index(second) > 0
        for properties in record["properties"]:
            assert 1 <= len(properties) <= 4
            order = [PROPERTY_NAMES.index(each["name"]) for each in properties]
            assert order == sorted(order)
            assert all(each["text"] in upper for each in properties)


def test_random_pairs_state_properties_of_library_molecules(small, built):
    pairs = [record for record in load(built) if record["source"] == "pairs"]
    assert [record["number"] for record in pairs] == list(range(1, 61))
    library = set(read_libraries(small))
    stated = set()
    for record in pairs:
        assert set(record["smiles"]) <= library
        assert (record["split"], record["task"], record["target"]) == (
            "train",
            "pair_properties",
            None,
        )
        assert record["text"] == record["answer"]
        assert get_task("pair_properties").parse_answer(record["text"]).status == "ok"
        for properties in record["properties"]:
            order = [PROPERTY_NAMES.index(each["name"]) for each in properties]
            assert order == sorted(set(order))
            stated |= set(order)
    assert len({tuple(record["smiles"]) for record in pairs}) == 60
    assert len(stated) > 10  # not only the first properties of the table


def test_manifest_describes_the_build(small, built):
    manifest = read_manifest(built)
    assert manifest["rows"] == len(load(built))
    assert max(shard["rows"] for shard in manifest["shards"]) == 25
    for shard in manifest["shards"]:
        assert sha256(built / shard["name"]) == shard["sha256"]
    for source in manifest["sources"].values():
        assert sha256(small / source["file"]) == source["sha256"]
    assert manifest["sources"]["combisolv_exp"]["held_back"]["train"] > 0
    assert manifest["properties"]["log_s"]["withheld"] > 5
    assert manifest["options"]["seed"] == 0
    assert str(small.parent) not in (built / "manifest.json").read_text()


def test_build_is_reproducible_and_depends_on_the_seed(small, built, tmp_path):
    for name, options in {
        "again": BuildOptions(pairs=60),
        "other": BuildOptions(pairs=60, seed=1),
    }.items():
        build(small, tmp_path / name, options, shard_rows=25)
    assert checksums(tmp_path / "again") == checksums(built)
    assert not set(checksums(tmp_path / "other").values()) & set(checksums(built).values())
    # Another seed changes the order and not the records.
    ids = {record["id"] for record in load(built)}
    assert {record["id"] for record in load(tmp_path / "other")} == ids


def test_build_is_reproducible_in_another_process(small, built, tmp_path):
    code = (
        "import sys; from pathlib import Path;"
        "from moltc_vllm.data.build import BuildOptions, build;"
        "build(Path(sys.argv[1]), Path(sys.argv[2]), BuildOptions(pairs=60), shard_rows=25)"
    )
    command = [sys.executable, "-c", code, str(small), str(tmp_path / "out")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert checksums(tmp_path / "out") == checksums(built)


@pytest.mark.parametrize("chain", ["upper", "lower", "none"])
def test_chain_selects_the_levels_of_the_text(small, built, tmp_path, chain):
    build(small, tmp_path / "out", BuildOptions(FEW, pairs=0, chain=chain))
    complete = {record["id"]: record for record in load(built)}
    value_tasks = set()
    for record in load(tmp_path / "out"):
        assert {**record, "text": ""} == {**complete[record["id"]], "text": ""}
        kind = get_task(record["task"]).kind
        number_alone = isinstance(kind, Number) and chain != "lower"
        answer = value_text(record["answer"]) if number_alone else record["answer"]
        assert record["text"] == (f"{record['upper']}\n{answer}" if chain == "upper" else answer)
        if number_alone:
            value_tasks.add(record["task"])
            value = kind.parse(record["answer"]).value
            assert (
                answer == f"The {kind.phrase} of these two molecules is {value:.{kind.decimals}f};"
            )
    assert value_tasks == (set() if chain == "lower" else {"solvation", "lifetime"})


def test_number_of_properties_is_limited(small, tmp_path):
    build(small, tmp_path / "one", BuildOptions(FEW, pairs=20, properties=1))
    for record in load(tmp_path / "one"):
        assert [len(properties) for properties in record["properties"]] == [1, 1]
    build(small, tmp_path / "none", BuildOptions(FEW, pairs=0, properties=0, chain="lower"))
    assert all(record["text"] == record["answer"] for record in load(tmp_path / "none"))


def test_intervals_of_the_rule_replace_those_of_the_table(small, tmp_path):
    out = tmp_path / "out"
    manifest = build(small, out, BuildOptions(FEW, pairs=0, intervals="rule"))
    width = manifest["sources"]["deep4chem_lifetime"]["intervals"]["width"]
    assert width != 0.01
    highest = []
    for record in load(out):
        if record["task"] == "lifetime":
            kind = get_task("lifetime").kind
            low, high = kind.parse(record["answer"]).interval
            highest += [high] if low == 0 else []
    assert set(highest) <= {width}


def test_solubility_records_do_not_state_the_solubility(built):
    for record in load(built):
        names = {each["name"] for properties in record["properties"] for each in properties}
        assert record["task"] != "solubility" or "log_s" not in names
    assert any(
        each["name"] == "log_s"
        for record in load(built)
        for properties in record["properties"]
        for each in properties
    )


@pytest.mark.parametrize("by", ["molecule", "scaffold"])
def test_split_by_molecule_or_scaffold_counts_unseen_molecules(small, tmp_path, by):
    manifest = build(small, tmp_path / "out", BuildOptions(pairs=40, split_by=by, fraction=0.4))
    records = load(tmp_path / "out")
    assert {record["split"] for record in records} == {"train", "test"}
    assert manifest["set_aside"] > 10
    assert {record["unseen"] for record in records if record["split"] == "train"} == {0, None}
    assert {record["unseen"] for record in records if record["split"] == "test"} == {1, 2}
    if by == "molecule":
        train = [record for record in records if record["split"] == "train"]
        seen = {flat_key(smiles) for record in train for smiles in record["smiles"]}
        for record in records:
            if record["unseen"] is not None:
                unseen = sum(flat_key(smiles) not in seen for smiles in record["smiles"])
                assert unseen == record["unseen"]


def test_limit_is_applied_before_the_split_by_molecule(small, tmp_path):
    """A molecule of a dropped row has not been seen."""
    options = BuildOptions(
        ("combisolv_exp",), pairs=0, split_by="molecule", fraction=0.3, limit=25, intervals="rule"
    )
    manifest = build(small, tmp_path / "out", options)
    assert not [result for result in check_build(tmp_path / "out", small) if result.failed]
    counts = Counter(record["split"] for record in load(tmp_path / "out"))
    assert manifest["sources"]["combisolv_exp"]["rows"] == counts
    assert counts.total() == 25


def test_number_outside_the_bounds_of_the_task_is_an_error(small, tmp_path, monkeypatch):
    datasets = read_splits(["freesolv"], small)
    row = replace(datasets["freesolv"].rows["train"][0], target=-100.0)
    datasets["freesolv"].rows["train"] = (row,)
    monkeypatch.setattr(build_module, "read_splits", lambda *_: datasets)
    message = (
        rf"^freesolv, row {row.number} \({re.escape(', '.join(row.molecules))}\): .*-100\.0 is"
    )
    with pytest.raises(DataError, match=message):
        build(small, tmp_path / "out", BuildOptions(("freesolv",), pairs=0))
    assert not (tmp_path / "out").exists()


def test_limit_samples_rows(small, tmp_path):
    build(small, tmp_path / "out", BuildOptions(("freesolv",), pairs=0, limit=7))
    numbers = [record["number"] for record in load(tmp_path / "out") if record["split"] == "train"]
    assert len(numbers) == 7
    assert numbers != sorted(numbers)


def test_interrupted_build_leaves_nothing(small, tmp_path):
    def stop(name, done, total):
        if name.startswith("chchminer"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small, tmp_path / "out", BuildOptions(FEW, pairs=0), stop)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_killed_build_is_removed(small, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "old-train-00000.parquet").write_bytes(b"old")
    build(small, tmp_path / "out", BuildOptions(("freesolv",), pairs=0))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "old-train-00000.parquet" not in checksums(tmp_path / "out")


def test_build_refuses_a_folder_that_is_not_empty(small, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(DataError, match="exists and is not empty"):
        build(small, tmp_path / "out", BuildOptions(FEW))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sources": (), "pairs": 0}, "there is nothing to build"),
        ({"properties": 0, "chain": "none"}, "number of properties is at least 1"),
        ({"properties": 0, "pairs": 0}, "number of properties is at least 1"),
        ({"pairs": -1}, "number of pairs is at least 0, not -1"),
        ({"limit": 0}, "limit is at least 1, not 0"),
        ({"split_by": "molecule", "fraction": 1.5}, "fraction 1.5 of molecules is not between"),
        ({"sources": ("nothing",)}, "unknown data set 'nothing'"),
    ],
)
def test_option_out_of_range_is_an_error(small, tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        build(small, tmp_path / "out", BuildOptions(**{"sources": ("freesolv",), **options}))
    assert list(tmp_path.iterdir()) == []


def test_bad_molecule_is_reported_and_other_rows_are_kept(small, tmp_path, monkeypatch):
    datasets = read_splits(FEW, small)
    rows = datasets["combisolv_exp"].rows["train"]
    broken = rows[0].__class__(rows[0].number, ("C1CC", "O"), rows[0].target)
    datasets["combisolv_exp"].rows["train"] = (broken, *rows[1:])
    monkeypatch.setattr(build_module, "read_splits", lambda *_: datasets)
    manifest = build(small, tmp_path / "out", BuildOptions(FEW, pairs=0))
    (line,) = manifest["bad_molecules"]
    assert line.startswith(f"combisolv_exp:{broken.number}: molecule 'C1CC'")
    rows_by_split = [rows for dataset in datasets.values() for rows in dataset.rows.values()]
    assert manifest["rows"] == sum(map(len, rows_by_split)) - 1


def test_records_have_the_columns_of_the_schema(built):
    assert list(load(built)[0]) == SCHEMA.names
