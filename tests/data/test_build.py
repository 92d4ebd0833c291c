"""Built instructions: their texts, their bytes, and what is left after an interruption."""

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
from moltc_vllm.data import build as builder
from moltc_vllm.data.build import Options, build
from moltc_vllm.data.check_build import check_build
from moltc_vllm.data.files import sha256
from moltc_vllm.data.instructions import SCHEMA, value_text
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.libraries import read_libraries
from moltc_vllm.data.properties import PROPERTY_NAMES
from moltc_vllm.data.shards import read_manifest, read_records
from moltc_vllm.data.splits import read_parts
from moltc_vllm.tasks import Number, get_task

FEW = ("combisolv_exp", "chchminer", "deep4chem_lifetime")


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def records(folder):
    return list(read_records(folder))


@pytest.fixture(scope="module")
def built(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    build(small, out, Options(pairs=60), shard_rows=25)
    return out


def test_every_measured_row_is_one_record(small, built):
    parts = read_parts(Options().sources, small)
    expected = {
        f"{name}:{row.number}": (split, row)
        for name, part in parts.items()
        for split, rows in part.rows.items()
        for row in rows
    }
    found = {one["id"]: one for one in records(built) if one["source"] != "pairs"}
    assert found.keys() == expected.keys()
    assert len(found) > 800
    for name, (split, row) in expected.items():
        one = found[name]
        task = get_task(parts[one["source"]].source.task)
        assert (one["split"], one["smiles"]) == (split, list(row.molecules))
        assert (one["task"], one["question"]) == (task.name, task.question)
        assert one["answer"] == task.write(row.target)
        target = json.loads(one["target"])
        assert (tuple(target) if isinstance(target, list) else target) == row.target
        assert one["unseen"] is None


def test_the_text_is_properties_then_answer_and_can_be_read(built):
    for one in records(built):
        if one["source"] == "pairs":
            continue
        task = get_task(one["task"])
        upper, _, answer = one["text"].rpartition("\n")
        assert upper == one["upper"]
        assert task.answer(answer).status == "ok"
        first, second = (f"{role.capitalize()}: " for role in task.roles)
        assert upper.startswith(first)
        assert upper.index(second) > 0
        for known in one["properties"]:
            assert 1 <= len(known) <= 4
            order = [PROPERTY_NAMES.index(property["name"]) for property in known]
            assert order == sorted(order)
            assert all(property["text"] in upper for property in known)


def test_random_pairs(small, built):
    pairs = [one for one in records(built) if one["source"] == "pairs"]
    assert [one["number"] for one in pairs] == list(range(1, 61))
    library = set(read_libraries(small))
    told = set()
    for one in pairs:
        assert set(one["smiles"]) <= library
        assert (one["split"], one["task"], one["target"]) == ("train", "pair_properties", None)
        assert one["text"] == one["answer"]
        assert get_task("pair_properties").answer(one["text"]).status == "ok"
        for known in one["properties"]:
            order = [PROPERTY_NAMES.index(property["name"]) for property in known]
            assert order == sorted(set(order))
            told |= set(order)
    assert len({tuple(one["smiles"]) for one in pairs}) == 60
    assert len(told) > 10  # not always the first ones of the table


def test_the_manifest(small, built):
    manifest = read_manifest(built)
    assert manifest["rows"] == len(records(built))
    assert max(shard["rows"] for shard in manifest["shards"]) == 25
    for shard in manifest["shards"]:
        assert sha256(built / shard["name"]) == shard["sha256"]
    for one in manifest["sources"].values():
        assert sha256(small / one["file"]) == one["sha256"]
    assert manifest["sources"]["combisolv_exp"]["held_back"]["train"] > 0
    assert manifest["properties"]["log_s"]["withheld"] > 5
    assert manifest["options"]["seed"] == 0
    assert str(small.parent) not in (built / "manifest.json").read_text()


def test_the_same_bytes_twice_and_others_with_another_seed(small, built, tmp_path):
    for name, options in {"again": Options(pairs=60), "other": Options(pairs=60, seed=1)}.items():
        build(small, tmp_path / name, options, shard_rows=25)
    assert contents(tmp_path / "again") == contents(built)
    assert not set(contents(tmp_path / "other").values()) & set(contents(built).values())
    # Another seed is another order, not other records.
    assert {one["id"] for one in records(tmp_path / "other")} == {
        one["id"] for one in records(built)
    }


def test_the_same_bytes_in_another_process(small, built, tmp_path):
    code = (
        "import sys; from pathlib import Path; from moltc_vllm.data.build import Options, build;"
        "build(Path(sys.argv[1]), Path(sys.argv[2]), Options(pairs=60), shard_rows=25)"
    )
    command = [sys.executable, "-c", code, str(small), str(tmp_path / "out")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert contents(tmp_path / "out") == contents(built)


@pytest.mark.parametrize("chain", ["upper", "lower", "none"])
def test_levels_of_the_chain(small, built, tmp_path, chain):
    build(small, tmp_path / "out", Options(FEW, pairs=0, chain=chain))
    whole = {one["id"]: one for one in records(built)}
    seen = set()
    for one in records(tmp_path / "out"):
        assert {**one, "text": ""} == {**whole[one["id"]], "text": ""}
        kind = get_task(one["task"]).kind
        number_alone = isinstance(kind, Number) and chain != "lower"
        answer = value_text(one["answer"]) if number_alone else one["answer"]
        assert one["text"] == (f"{one['upper']}\n{answer}" if chain == "upper" else answer)
        if number_alone:
            seen.add(one["task"])
            value = kind.parse(one["answer"]).value
            assert (
                answer == f"The {kind.phrase} of these two molecules is {value:.{kind.decimals}f};"
            )
    assert seen == (set() if chain == "lower" else {"solvation", "lifetime"})


def test_one_property_and_none(small, tmp_path):
    build(small, tmp_path / "one", Options(FEW, pairs=20, properties=1))
    for one in records(tmp_path / "one"):
        assert [len(known) for known in one["properties"]] == [1, 1]
    build(small, tmp_path / "none", Options(FEW, pairs=0, properties=0, chain="lower"))
    assert all(one["text"] == one["answer"] for one in records(tmp_path / "none"))


def test_the_intervals_of_the_rule(small, tmp_path):
    out = tmp_path / "out"
    manifest = build(small, out, Options(FEW, pairs=0, intervals="rule"))
    width = manifest["sources"]["deep4chem_lifetime"]["intervals"]["width"]
    assert width != 0.01
    highest = []
    for one in records(out):
        if one["task"] == "lifetime":
            kind = get_task("lifetime").kind
            low, high = kind.parse(one["answer"]).interval
            highest += [high] if low == 0 else []
    assert set(highest) <= {width}


def test_no_solubility_in_its_own_answer(built):
    for one in records(built):
        names = {property["name"] for known in one["properties"] for property in known}
        assert one["task"] != "solubility" or "log_s" not in names
    assert any(
        property["name"] == "log_s"
        for one in records(built)
        for known in one["properties"]
        for property in known
    )


@pytest.mark.parametrize("by", ["molecule", "scaffold"])
def test_unseen_molecules(small, tmp_path, by):
    manifest = build(small, tmp_path / "out", Options(pairs=40, split_by=by, fraction=0.4))
    found = records(tmp_path / "out")
    assert {one["split"] for one in found} == {"train", "test"}
    assert manifest["set_aside"] > 10
    assert {one["unseen"] for one in found if one["split"] == "train"} == {0, None}
    assert {one["unseen"] for one in found if one["split"] == "test"} == {1, 2}
    if by == "molecule":
        seen = {flat_key(m) for one in found if one["split"] == "train" for m in one["smiles"]}
        for one in found:
            if one["unseen"] is not None:
                assert sum(flat_key(m) not in seen for m in one["smiles"]) == one["unseen"]


def test_a_limit_goes_before_what_is_unseen(small, tmp_path):
    """What is not among the records has not been seen."""
    options = Options(
        ("combisolv_exp",), pairs=0, split_by="molecule", fraction=0.3, limit=25, intervals="rule"
    )
    manifest = build(small, tmp_path / "out", options)
    assert not [one for one in check_build(tmp_path / "out", small) if one.failed]
    found = Counter(one["split"] for one in records(tmp_path / "out"))
    assert manifest["sources"]["combisolv_exp"]["rows"] == found
    assert found.total() == 25


def test_a_number_that_cannot_be_said_is_named(small, tmp_path, monkeypatch):
    parts = read_parts(["freesolv"], small)
    row = replace(parts["freesolv"].rows["train"][0], target=-100.0)
    parts["freesolv"].rows["train"] = (row,)
    monkeypatch.setattr(builder, "read_parts", lambda *_: parts)
    named = rf"^freesolv, row {row.number} \({re.escape(', '.join(row.molecules))}\): .*-100\.0 is"
    with pytest.raises(DataError, match=named):
        build(small, tmp_path / "out", Options(("freesolv",), pairs=0))
    assert not (tmp_path / "out").exists()


def test_a_limit_draws(small, tmp_path):
    build(small, tmp_path / "out", Options(("freesolv",), pairs=0, limit=7))
    numbers = [one["number"] for one in records(tmp_path / "out") if one["split"] == "train"]
    assert len(numbers) == 7
    assert numbers != sorted(numbers)


def test_an_interruption_leaves_nothing(small, tmp_path):
    def stop(name, done, total):
        if name.startswith("chchminer"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small, tmp_path / "out", Options(FEW, pairs=0), stop)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_not_kept(small, tmp_path):
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "old-train-00000.parquet").write_bytes(b"old")
    build(small, tmp_path / "out", Options(("freesolv",), pairs=0))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "old-train-00000.parquet" not in contents(tmp_path / "out")


def test_nothing_is_written_over(small, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(DataError, match="exists and is not empty"):
        build(small, tmp_path / "out", Options(FEW))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sources": (), "pairs": 0}, "nothing to build"),
        ({"properties": 0, "chain": "none"}, "at least one property is told"),
        ({"properties": 0, "pairs": 0}, "at least one property is told"),
        ({"pairs": -1}, "pairs is 0 or more"),
        ({"limit": 0}, "limit 1 or more"),
        ({"split_by": "molecule", "fraction": 1.5}, "fraction 1.5 of molecules is not between"),
        ({"sources": ("nothing",)}, "unknown data set 'nothing'"),
    ],
)
def test_options_out_of_range(small, tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        build(small, tmp_path / "out", Options(**{"sources": ("freesolv",), **options}))
    assert list(tmp_path.iterdir()) == []


def test_a_bad_molecule_is_named_and_costs_no_other_row(small, tmp_path, monkeypatch):
    parts = read_parts(FEW, small)
    rows = parts["combisolv_exp"].rows["train"]
    broken = rows[0].__class__(rows[0].number, ("C1CC", "O"), rows[0].target)
    parts["combisolv_exp"].rows["train"] = (broken, *rows[1:])
    monkeypatch.setattr(builder, "read_parts", lambda *_: parts)
    manifest = build(small, tmp_path / "out", Options(FEW, pairs=0))
    (line,) = manifest["bad_molecules"]
    assert line.startswith(f"combisolv_exp:{broken.number}: molecule 'C1CC'")
    assert manifest["rows"] == sum(len(r) for p in parts.values() for r in p.rows.values()) - 1


def test_records_have_the_columns_of_the_schema(built):
    assert list(records(built)[0]) == SCHEMA.names
