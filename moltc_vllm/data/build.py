"""Build of the instruction data, from the data sets to shards on disk.

1. The rows of the data sets are read, and the properties of all molecules by canonical SMILES.
2. Each number task gets its intervals, from the task table or from `choose_intervals`.
3. Each record states the known properties of its molecules, up to a limit.
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from rdkit import rdBase

from moltc_vllm._version import __version__
from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.dataset import Row, sample_rows
from moltc_vllm.data.dataset_registry import DATASETS, DatasetSpec, get_dataset_spec
from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.holdout import read_holdout
from moltc_vllm.data.instructions import (
    PAIR_TASK,
    PAIRS,
    Chain,
    Instruction,
    make_instruction,
    make_pair_instruction,
    with_intervals,
)
from moltc_vllm.data.intervals import choose_intervals
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.libraries import LIBRARIES, read_libraries
from moltc_vllm.data.molecule_properties import CAPTION_FILE, MOLECULE_PROPERTIES
from moltc_vllm.data.properties import Property, PropertyTable
from moltc_vllm.data.shards import FORMAT, SHARD_ROWS, write_manifest, write_shards
from moltc_vllm.data.splits import TEST, TRAIN, DatasetSplits, read_splits
from moltc_vllm.data.summary import numeric_targets
from moltc_vllm.data.unseen import BOTH_UNSEEN, KNOWN, ONE_UNSEEN, UnseenSplits, unseen_splits
from moltc_vllm.tasks import Number, Task, get_task
from moltc_vllm.utils.atomic_files import new_folder

UNSEEN_MOLECULES = {KNOWN: 0, ONE_UNSEEN: 1, BOTH_UNSEEN: 2}
"""Number of unseen molecules in the rows of each part of `UnseenSplits.rows`."""

BuildProgress = Callable[[str, int, int], None]
"""Progress callback that receives the name of a data set and split, and its numbers of written
records and of rows."""

_MAX_DRAWS = 1000  # attempts to draw a molecule that can be parsed and is not excluded
_RECORDS_PER_UPDATE = 500


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of a build; they are part of its manifest.

    Attributes:
        sources: Keys of `DATASETS`.
        pairs: Number of pairs of random molecules of the libraries.
        properties: Largest number of properties to state per molecule.
        chain: Levels of reasoning in the text.
        intervals: Origin of the interval widths: ``table`` takes those of the task table, which are
            also used for inference; ``rule`` computes them with `choose_intervals`.
        split_by: ``pair`` keeps the splits of the data sets. ``molecule`` and ``scaffold`` divide
            their train splits (`unseen_splits`): the test records state how many of their molecules
            are unseen, and there are no valid records.
        fraction: Fraction of the molecules or scaffolds to exclude from the train records.
        limit: Number of rows of each data set and split to sample; ``None`` for all.
        seed: Seed of all samples and of the order of the records.
    """

    sources: tuple[str, ...] = tuple(DATASETS)
    pairs: int = 100_000
    properties: int = 4
    chain: Chain = "both"
    intervals: Literal["table", "rule"] = "table"
    split_by: Literal["pair", "molecule", "scaffold"] = "pair"
    fraction: float = 0.1
    limit: int | None = None
    seed: int = 0


class _SplitRows(NamedTuple):
    """Rows of one split of a data set, in the order of their records.

    Attributes:
        spec: Description of the data set.
        split: Name of the split.
        rows: Rows, each with its number of unseen molecules if the build counts them.
    """

    spec: DatasetSpec
    split: str
    rows: list[tuple[Row, int | None]]

    @property
    def name(self) -> str:
        return f"{self.spec.name}-{self.split}"


class _RecordStream(NamedTuple):
    """Records that are written to their own shards.

    Attributes:
        name: Beginning of the names of the shards.
        total: Number of rows; there are fewer records if a molecule cannot be parsed.
        records: Iterator over the records.
    """

    name: str
    total: int
    records: Iterator[Instruction]


def build(
    folder: Path,
    out: Path,
    options: BuildOptions,
    progress: BuildProgress = lambda name, done, total: None,
    *,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Write the instruction data; equal files, options and versions give equal bytes.

    Args:
        folder: Folder of the data files.
        out: Folder to write; it appears when the build is complete.
        options: Options of the build.
        progress: Callback that receives progress updates.
        shard_rows: Number of records per shard.

    Returns:
        The manifest.

    Raises:
        DataError: If a file cannot be read, or ``out`` is not empty.
        ValueError: If an option is out of range.
    """
    _check(options)
    specs = [get_dataset_spec(name) for name in options.sources]
    with new_folder(out, DataError) as partial:
        datasets = read_splits(options.sources, folder)
        revealed = {measured.reveals[0] for measured in MOLECULE_PROPERTIES if measured.reveals}
        table = PropertyTable(folder, read_holdout(revealed, folder, flat_key))
        unseen = _divide_by_unseen(datasets, options)
        splits = list(_shuffle_splits(datasets, unseen, options))
        tasks = {spec.name: _choose_task(spec, splits, options) for spec in specs}
        bad_molecules: list[str] = []
        streams = [
            _RecordStream(
                split.name,
                len(split.rows),
                _make_instructions(split, tasks[split.spec.name], table, options, bad_molecules),
            )
            for split in splits
        ]
        if options.pairs:
            records = _make_pairs(read_libraries(folder), table, unseen, options)
            streams.append(_RecordStream(f"{PAIRS}-{TRAIN}", options.pairs, records))
        shards = [
            shard
            for stream in streams
            for shard in write_shards(
                partial, stream.name, _report_progress(stream, progress), shard_rows
            )
        ]
        manifest = {
            "format": FORMAT,
            "options": asdict(options),
            "versions": _versions(),
            "sources": {
                spec.name: {
                    **_describe_dataset(spec, tasks[spec.name], folder),
                    "rows": {
                        split.split: len(split.rows) for split in splits if split.spec is spec
                    },
                    "held_back": datasets[spec.name].held_out,
                }
                for spec in specs
            },
            "properties": table.counts(),
            "files": {name: sha256(folder / name) for name in _molecule_files(options)},
            "set_aside": None if unseen is None else len(unseen.excluded),
            "bad_molecules": bad_molecules,
            "rows": sum(shard["rows"] for shard in shards),
            "shards": shards,
        }
        write_manifest(partial, manifest)
    return manifest


def _check(options: BuildOptions) -> None:
    if not options.sources and not options.pairs:
        raise ValueError("there is nothing to build: give data sets or a number of pairs")
    if options.properties < 1 and (options.pairs or options.chain in ("both", "upper")):
        raise ValueError(
            "the number of properties is at least 1, unless there are no pairs and the chain is "
            "lower or none"
        )
    if options.pairs < 0:
        raise ValueError(f"the number of pairs is at least 0, not {options.pairs}")
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"the limit is at least 1, not {options.limit}")


def _divide_by_unseen(
    datasets: Mapping[str, DatasetSplits], options: BuildOptions
) -> UnseenSplits | None:
    if options.split_by == "pair":
        return None
    # The limit is applied first, because a molecule of a dropped row has not been seen.
    train_rows = {
        name: sample_rows(dataset.rows[TRAIN], options.limit, options.seed)
        for name, dataset in datasets.items()
    }
    return unseen_splits(train_rows, options.seed, options.fraction, by=options.split_by)


def _shuffle_splits(
    datasets: Mapping[str, DatasetSplits], unseen: UnseenSplits | None, options: BuildOptions
) -> Iterator[_SplitRows]:
    """Yield the splits of all data sets in order, the rows of each in random order."""
    for name, dataset in datasets.items():
        rows_by_split: dict[str, list[tuple[Row, int | None]]] = {}
        if unseen is None:
            for split, rows in dataset.rows.items():
                rows_by_split[split] = [(row, None) for row in rows]
        else:
            for part, part_rows in unseen.rows[name].items():
                split = TRAIN if part == KNOWN else TEST
                count = UNSEEN_MOLECULES[part]
                rows_by_split.setdefault(split, []).extend((row, count) for row in part_rows)
        for split, counted_rows in rows_by_split.items():
            generator = _generator(options.seed, f"{name}-{split}")
            order = generator.permutation(len(counted_rows))[: options.limit]
            yield _SplitRows(dataset.spec, split, [counted_rows[index] for index in order])


def _choose_task(spec: DatasetSpec, splits: Sequence[_SplitRows], options: BuildOptions) -> Task:
    """Return the task of a data set, with the intervals that the options select."""
    task = get_task(spec.task)
    if options.intervals == "table" or not isinstance(task.kind, Number):
        return task
    train_splits = (split for split in splits if split.spec is spec and split.split == TRAIN)
    rows = [row for split in train_splits for row, _ in split.rows]
    try:
        return with_intervals(task, choose_intervals(numeric_targets(rows)))
    except ValueError as error:
        raise ValueError(f"{spec.name}: {error}") from error


def _make_instructions(
    split: _SplitRows,
    task: Task,
    table: PropertyTable,
    options: BuildOptions,
    bad_molecules: list[str],
) -> Iterator[Instruction]:
    """Make the records of a split.

    Args:
        split: Rows of the split.
        task: Task of the data set.
        table: Properties of all molecules.
        options: Options of the build.
        bad_molecules: List to which rows with a molecule that cannot be parsed are added.
    """
    for row, unseen in split.rows:
        try:
            properties = [
                table.properties(smiles, without=split.spec.reveals)[: options.properties]
                for smiles in row.molecules
            ]
        except MoleculeError as error:
            bad_molecules.append(f"{split.spec.name}:{row.number}: {error}")
            continue
        yield make_instruction(
            task,
            split.spec.name,
            split.split,
            row,
            properties,
            chain=options.chain,
            unseen=unseen,
        )


def _make_pairs(
    molecules: Sequence[str],
    table: PropertyTable,
    unseen: UnseenSplits | None,
    options: BuildOptions,
) -> Iterator[Instruction]:
    """Make the records of random pairs, each with some properties of its molecules."""
    generator = _generator(options.seed, PAIRS)
    task = get_task(PAIR_TASK)
    for number in range(1, options.pairs + 1):
        drawn = [_draw_molecule(molecules, table, unseen, options, generator) for _ in task.roles]
        row = Row(number, tuple(smiles for smiles, _ in drawn), None)
        yield make_pair_instruction(task, TRAIN, row, [properties for _, properties in drawn])


def _draw_molecule(
    molecules: Sequence[str],
    table: PropertyTable,
    unseen: UnseenSplits | None,
    options: BuildOptions,
    generator: np.random.Generator,
) -> tuple[str, list[Property]]:
    """Draw a molecule that is not excluded, and a random subset of its properties in order."""
    for _ in range(_MAX_DRAWS):
        smiles = molecules[int(generator.integers(len(molecules)))]
        if unseen is not None and unseen.is_excluded(smiles):
            continue
        with suppress(MoleculeError):
            properties = table.properties(smiles)
            indices = generator.permutation(len(properties))[: options.properties]
            return smiles, [properties[index] for index in sorted(indices)]
    raise ValueError(
        f"{_MAX_DRAWS} molecules drawn from the libraries cannot be parsed or are excluded; lower "
        "the fraction of molecules to exclude"
    )


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def _report_progress(stream: _RecordStream, progress: BuildProgress) -> Iterator[Instruction]:
    """Yield the records of a stream and report their number."""
    progress(stream.name, 0, stream.total)
    for done, record in enumerate(stream.records, 1):
        yield record
        if done % _RECORDS_PER_UPDATE == 0:
            progress(stream.name, done, stream.total)
    progress(stream.name, stream.total, stream.total)


def _versions() -> dict[str, str]:
    return {
        "moltc-vllm": __version__,
        "python": platform.python_version(),
        "rdkit": rdBase.rdkitVersion,
        "pyarrow": pa.__version__,
        "numpy": np.__version__,
    }


def _describe_dataset(spec: DatasetSpec, task: Task, folder: Path) -> dict[str, Any]:
    """Return the entry of a data set in the manifest."""
    description: dict[str, Any] = {
        "file": spec.file,
        "sha256": sha256(folder / spec.file),
        "task": spec.task,
        "licence": spec.license,
    }
    if isinstance(task.kind, Number):
        kind = task.kind
        description["intervals"] = {"width": kind.interval_width, "scale": kind.scale}
    return description


def _molecule_files(options: BuildOptions) -> list[str]:
    """Return the names of the files of single molecules that a build reads."""
    files = [
        CAPTION_FILE,
        *(measured.file for measured in MOLECULE_PROPERTIES),
        *(LIBRARIES if options.pairs else ()),
    ]
    return sorted(set(files))
