"""Checks of built instructions: the files, the texts, and what a record tells of another one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.holdout import Holdout, Place, read_holdout
from moltc_vllm.data.instructions import PAIRS, UPPER_END, value_text
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.leaks import Check, Told, check_pairs, compare
from moltc_vllm.data.molecule_properties import MOLECULE_PROPERTIES
from moltc_vllm.data.shards import read_manifest, read_records
from moltc_vllm.data.splits import TRAIN
from moltc_vllm.data.unseen import SplitBy, keys_of, unseen_count
from moltc_vllm.tasks import Number, Task, Terms, Text, UnparsedError, get_task

_COLUMNS = ["id", "source", "split", "smiles", "number", "unseen"]


def check_build(built: Path, folder: Path) -> Iterator[Check]:
    """Check a folder that `moltc data build` wrote.

    Args:
        built: With shards and a manifest.
        folder: Of the data files, for what they hold back.

    Raises:
        DataError: If a file is missing or cannot be read.
    """
    manifest = read_manifest(built)
    yield _check_files(built, manifest)
    ids = Check("every record has an id of its own")
    told: list[Told] = []
    own = Holdout()
    known: set[str] = set()
    for record in read_records(built, _COLUMNS):
        ids.checked += 1
        if record["id"] in known:
            ids.found.append(f"{record['id']} is there again")
        known.add(record["id"])
        if record["source"] != PAIRS:
            one = _told(record)
            told.append(one)
            own.add(DATASETS[one.place.source].family, one.molecules, one.place)
    yield ids
    yield compare("no pair is in two splits here", told, own)
    yield from check_pairs(told, folder)
    yield _check_texts(built, str(manifest["options"]["chain"]))
    yield _check_properties(built, folder)
    if manifest["options"]["split_by"] != "pair":
        yield _check_unseen(built, manifest["options"]["split_by"])


def _told(record: dict[str, Any]) -> Told:
    source = DATASETS.get(record["source"])
    if source is None:
        raise DataError(f"record {record['id']} is of no known data set")
    place = Place(record["source"], record["number"], record["split"])
    return Told(place, tuple(record["smiles"]), source.reveals)


def _check_files(built: Path, manifest: dict[str, Any]) -> Check:
    check = Check("every shard is as the manifest has it")
    listed = {shard["name"]: shard["sha256"] for shard in manifest["shards"]}
    for path in sorted(built.glob("*.parquet")):
        check.checked += 1
        if path.name not in listed:
            check.found.append(f"{path.name} is not in the manifest")
        elif sha256(path) != listed[path.name]:
            check.found.append(f"{path.name} was changed")
    return check


def _check_texts(built: Path, chain: str) -> Check:
    """Check that every answer can be read back to what was measured, and stands in its text."""
    check = Check("every answer is read back to its target")
    columns = ["id", "task", "upper", "answer", "text", "target"]
    for record in read_records(built, columns):
        check.checked += 1
        problem = _problem(record, chain)
        if problem:
            check.found.append(f"{record['id']}: {problem}")
    return check


def _problem(record: dict[str, Any], chain: str) -> str | None:
    """What is wrong with a record's texts."""
    task, answer = get_task(record["task"]), record["answer"]
    told = answer
    if isinstance(task.kind, Number) and chain in ("upper", "none"):
        told = value_text(answer)
    upper = record["upper"] if chain in ("both", "upper") else ""
    if record["text"] != (upper + UPPER_END + told if upper else told):
        return "its text is not of its properties and its answer"
    try:
        read_back = _reads_back(task, answer, json.loads(record["target"] or "null"))
    except UnparsedError as error:
        return str(error)
    return None if read_back else f"{answer!r} is not its target {record['target']}"


def _reads_back(task: Task, answer: str, target: Any) -> bool:
    fields = task.kind.parse(answer)
    if isinstance(task.kind, Number):
        assert fields.value is not None
        assert fields.interval is not None
        low, high = fields.interval
        rounding = 0.5 * 10**-task.kind.decimals + 1e-9
        return abs(fields.value - target) <= rounding and low <= fields.value < high
    if isinstance(task.kind, Terms):
        return list(fields.items or ()) == target
    return isinstance(task.kind, Text) or fields.label_id == target


def _check_properties(built: Path, folder: Path) -> Check:
    """Check that no molecule's properties are the answer about a pair that is held back."""
    check = Check("no property tells an answer")
    tells = {one.name: one.tells for one in MOLECULE_PROPERTIES if one.tells}
    held = read_holdout({family for family, _ in tells.values()}, folder, flat_key)
    for record in read_records(built, ["id", "source", "smiles", "properties"]):
        source = DATASETS.get(record["source"])
        for smiles, properties in zip(record["smiles"], record["properties"], strict=True):
            for name in (one["name"] for one in properties):
                check.checked += 1
                if name not in tells:
                    continue
                family, partner = tells[name]
                place = held.place(family, (smiles, partner))
                if place is not None:
                    check.found.append(f"{record['id']}: {name} of {smiles} tells {place}")
                elif source is not None and family in source.reveals:
                    check.found.append(f"{record['id']}: {name} of {smiles} is its own answer")
    return check


def _check_unseen(built: Path, by: SplitBy) -> Check:
    """Check that as many molecules are new to the train records as each record says."""
    check = Check(f"every record's count of unseen {by}s is true")
    seen = keys_of(by, _molecules(read_records(built, ["split", "smiles"])))
    for record in read_records(built, ["id", "smiles", "unseen"]):
        check.checked += 1
        new = unseen_count(by, record["smiles"], seen)
        if new != (record["unseen"] or 0):
            check.found.append(f"{record['id']} has {new} unseen, not {record['unseen']}")
    return check


def _molecules(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    for record in records:
        if record["split"] == TRAIN:
            yield from record["smiles"]
