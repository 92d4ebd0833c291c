"""Checks of built instruction data: files, texts, and records that reveal held-out answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.holdout import Holdout, RowLocation, read_holdout
from moltc_vllm.data.instructions import PAIRS, UPPER_SEPARATOR, value_text
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.leaks import CheckResult, RecordedPair, check_pairs, find_leaks
from moltc_vllm.data.molecule_properties import MOLECULE_PROPERTIES
from moltc_vllm.data.shards import read_manifest, read_records
from moltc_vllm.data.splits import TRAIN
from moltc_vllm.data.unseen import SplitBy, collect_keys, count_unseen
from moltc_vllm.tasks import Number, Task, Terms, Text, UnparsedError, get_task

_COLUMNS = ["id", "source", "split", "smiles", "number", "unseen"]


def check_build(built: Path, folder: Path) -> Iterator[CheckResult]:
    """Check a folder that `moltc data build` wrote.

    Args:
        built: Folder with shards and a manifest.
        folder: Folder of the data files, which decide the held-out pairs.

    Raises:
        DataError: If a file is missing or cannot be read.
    """
    manifest = read_manifest(built)
    yield _check_files(built, manifest)
    ids = CheckResult("every record has its own id")
    pairs: list[RecordedPair] = []
    own_holdout = Holdout()
    known_ids: set[str] = set()
    for record in read_records(built, _COLUMNS):
        ids.checked += 1
        if record["id"] in known_ids:
            ids.findings.append(f"{record['id']} occurs more than once")
        known_ids.add(record["id"])
        if record["source"] != PAIRS:
            pair = _recorded_pair(record)
            pairs.append(pair)
            family = DATASETS[pair.location.dataset].family
            own_holdout.add(family, pair.molecules, pair.location)
    yield ids
    yield find_leaks("no pair is in two splits of the build", pairs, own_holdout)
    yield from check_pairs(pairs, folder)
    yield _check_texts(built, str(manifest["options"]["chain"]))
    yield _check_properties(built, folder)
    if manifest["options"]["split_by"] != "pair":
        yield _check_unseen(built, manifest["options"]["split_by"])


def _recorded_pair(record: dict[str, Any]) -> RecordedPair:
    spec = DATASETS.get(record["source"])
    if spec is None:
        raise DataError(f"record {record['id']} is from an unknown data set")
    location = RowLocation(record["source"], record["number"], record["split"])
    return RecordedPair(location, tuple(record["smiles"]), spec.reveals)


def _check_files(built: Path, manifest: dict[str, Any]) -> CheckResult:
    result = CheckResult("every shard has its checksum in the manifest")
    checksums = {shard["name"]: shard["sha256"] for shard in manifest["shards"]}
    for path in sorted(built.glob("*.parquet")):
        result.checked += 1
        if path.name not in checksums:
            result.findings.append(f"{path.name} is not in the manifest")
        elif sha256(path) != checksums[path.name]:
            result.findings.append(f"{path.name} was changed")
    return result


def _check_texts(built: Path, chain: str) -> CheckResult:
    """Check that every answer parses back to the target, and that its text ends with it."""
    result = CheckResult("every answer parses back to its target")
    columns = ["id", "task", "upper", "answer", "text", "target"]
    for record in read_records(built, columns):
        result.checked += 1
        problem = _text_problem(record, chain)
        if problem:
            result.findings.append(f"{record['id']}: {problem}")
    return result


def _text_problem(record: dict[str, Any], chain: str) -> str | None:
    """Describe the problem with the texts of a record; ``None`` if there is no problem."""
    task, answer = get_task(record["task"]), record["answer"]
    last_line = answer
    if isinstance(task.kind, Number) and chain in ("upper", "none"):
        last_line = value_text(answer)
    upper = record["upper"] if chain in ("both", "upper") else ""
    if record["text"] != (upper + UPPER_SEPARATOR + last_line if upper else last_line):
        return "its text does not consist of its properties and its answer"
    try:
        is_target = _parses_to_target(task, answer, json.loads(record["target"] or "null"))
    except UnparsedError as error:
        return str(error)
    return None if is_target else f"{answer!r} is not its target {record['target']}"


def _parses_to_target(task: Task, answer: str, target: Any) -> bool:
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


def _check_properties(built: Path, folder: Path) -> CheckResult:
    """Check that no property of a molecule is the answer of a held-out pair, or of its own pair."""
    result = CheckResult("no property reveals an answer")
    reveals = {
        measured.name: measured.reveals for measured in MOLECULE_PROPERTIES if measured.reveals
    }
    holdout = read_holdout({family for family, _ in reveals.values()}, folder, flat_key)
    for record in read_records(built, ["id", "source", "smiles", "properties"]):
        spec = DATASETS.get(record["source"])
        for smiles, properties in zip(record["smiles"], record["properties"], strict=True):
            for name in (item["name"] for item in properties):
                result.checked += 1
                if name not in reveals:
                    continue
                family, partner = reveals[name]
                held_out = holdout.find(family, (smiles, partner))
                finding = f"{record['id']}: {name} of {smiles}"
                if held_out is not None:
                    result.findings.append(f"{finding} reveals {held_out}")
                elif spec is not None and family in spec.reveals:
                    result.findings.append(f"{finding} is the record's own answer")
    return result


def _check_unseen(built: Path, by: SplitBy) -> CheckResult:
    """Check the number of unseen molecules that each record states."""
    result = CheckResult(f"every record's number of unseen {by}s is correct")
    train_keys = collect_keys(by, _train_molecules(read_records(built, ["split", "smiles"])))
    for record in read_records(built, ["id", "smiles", "unseen"]):
        result.checked += 1
        unseen = count_unseen(by, record["smiles"], train_keys)
        if unseen != (record["unseen"] or 0):
            result.findings.append(f"{record['id']} has {unseen} unseen, not {record['unseen']}")
    return result


def _train_molecules(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    for record in records:
        if record["split"] == TRAIN:
            yield from record["smiles"]
