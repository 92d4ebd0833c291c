"""The MoT instruction data, from the data sets to shards on the disk.

1. Pairs are collected, and what is known of each molecule, joined by canonical SMILES.
2. Each number task has its intervals: those of the task table, or of `choose_intervals`.
3. Of each molecule some properties are told, each of which can be missing.
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from rdkit import rdBase

from moltc_vllm._version import __version__
from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.dataset import Row, draw_rows
from moltc_vllm.data.datasets import DATASETS, Source, get_source
from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.holdout import read_holdout
from moltc_vllm.data.instructions import (
    PAIR_TASK,
    PAIRS,
    Chain,
    Instruction,
    instruct,
    instruct_pair,
    with_intervals,
)
from moltc_vllm.data.intervals import choose_intervals
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.libraries import LIBRARIES, read_libraries
from moltc_vllm.data.molecule_properties import CAPTION_FILE, MOLECULE_PROPERTIES
from moltc_vllm.data.properties import Property, PropertyBook
from moltc_vllm.data.shards import FORMAT, SHARD_ROWS, write_manifest, write_shards
from moltc_vllm.data.splits import TEST, TRAIN, Parts, read_parts
from moltc_vllm.data.summary import numbers
from moltc_vllm.data.unseen import BOTH_UNSEEN, KNOWN, ONE_UNSEEN, Unseen, unseen_splits
from moltc_vllm.tasks import Number, Task, get_task
from moltc_vllm.utils.atomic_files import new_folder

UNSEEN = {KNOWN: 0, ONE_UNSEEN: 1, BOTH_UNSEEN: 2}

Progress = Callable[[str, int, int], None]
"""Told the name of a part, how many of its records are written, and how many rows it has."""

_DRAWS = 1000  # until a molecule can be read and is not set aside
_EVERY = 500  # records between two calls of the progress


@dataclass(frozen=True, slots=True)
class Options:
    """What is built.

    Attributes:
        sources: Keys of `DATASETS`.
        pairs: How many pairs of random molecules of the libraries.
        properties: How many are told of each molecule, at most.
        chain: Which levels the text has.
        intervals: Whose widths numbers have: of the task table, which is what a model is asked
            with, or of the rule.
        split_by: ``pair``: the data sets' own splits. ``molecule`` and ``scaffold``: their train
            parts alone, divided anew (`unseen_splits`); the test records say how many of their
            molecules are unseen, and there are no valid ones.
        fraction: Of the molecules or scaffolds that are set aside.
        limit: Rows of each data set and split, drawn at random; all if ``None``.
        seed: Of the order of records, of the draws and of what is set aside.
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


class _Part(NamedTuple):
    """The rows of a split of a data set, each with how many of its molecules are unseen."""

    source: Source
    split: str
    rows: list[tuple[Row, int | None]]

    @property
    def name(self) -> str:
        return f"{self.source.name}-{self.split}"


def build(
    folder: Path,
    out: Path,
    options: Options,
    progress: Progress = lambda name, done, total: None,
    *,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Write the instruction data; the same bytes for the same files, options and versions.

    Args:
        folder: Of the data files.
        out: Folder to write; appears when all is done.
        options: What to build.
        progress: Told how far it is.
        shard_rows: Records per shard.

    Returns:
        The manifest.

    Raises:
        DataError: If a file cannot be read, or ``out`` exists.
        ValueError: If an option is out of range.
    """
    _check(options)
    sources = [get_source(name) for name in options.sources]
    with new_folder(out, DataError) as partial:
        parts = read_parts(options.sources, folder)
        told = {one.tells[0] for one in MOLECULE_PROPERTIES if one.tells}
        book = PropertyBook(folder, read_holdout(told, folder, flat_key))
        unseen = _set_aside(parts, options)
        wanted = list(_parts(parts, unseen, options))
        tasks = {source.name: _task(source, wanted, options) for source in sources}
        bad: list[str] = []
        streams = [
            (part.name, len(part.rows), _instructions(part, tasks, book, options, bad))
            for part in wanted
        ]
        if options.pairs:
            stream = _pairs(read_libraries(folder), book, unseen, options)
            streams.append((f"{PAIRS}-{TRAIN}", options.pairs, stream))
        shards = [
            shard
            for name, total, records in streams
            for shard in write_shards(
                partial, name, _watched(records, name, total, progress), shard_rows
            )
        ]
        manifest = {
            "format": FORMAT,
            "options": asdict(options),
            "versions": {
                "moltc-vllm": __version__,
                "python": platform.python_version(),
                "rdkit": rdBase.rdkitVersion,
                "pyarrow": pa.__version__,
                "numpy": np.__version__,
            },
            "sources": {
                source.name: {
                    **_described(source, tasks[source.name], folder),
                    "rows": {one.split: len(one.rows) for one in wanted if one.source is source},
                    "held_back": parts[source.name].held_back,
                }
                for source in sources
            },
            "properties": book.counts(),
            "files": {name: sha256(folder / name) for name in _files(options)},
            "set_aside": None if unseen is None else len(unseen.aside),
            "bad_molecules": bad,
            "rows": sum(shard["rows"] for shard in shards),
            "shards": shards,
        }
        write_manifest(partial, manifest)
    return manifest


def _check(options: Options) -> None:
    if not options.sources and not options.pairs:
        raise ValueError("nothing to build: no data sets and no pairs")
    if options.properties < 1 and (options.pairs or options.chain in ("both", "upper")):
        raise ValueError("at least one property is told, unless there are no pairs and no chain")
    if options.pairs < 0 or (options.limit is not None and options.limit < 1):
        raise ValueError("pairs is 0 or more, limit 1 or more")


def _set_aside(parts: dict[str, Parts], options: Options) -> Unseen | None:
    if options.split_by == "pair":
        return None
    # Drawn first: what is unseen depends on what is there.
    trained = {
        name: draw_rows(part.rows[TRAIN], options.limit, options.seed)
        for name, part in parts.items()
    }
    return unseen_splits(trained, options.seed, options.fraction, by=options.split_by)


def _task(source: Source, parts: Sequence[_Part], options: Options) -> Task:
    """The task of a data set, with the intervals that are wanted."""
    task = get_task(source.task)
    if options.intervals == "table" or not isinstance(task.kind, Number):
        return task
    learned = (part for part in parts if part.source is source and part.split == TRAIN)
    rows = [row for part in learned for row, _ in part.rows]
    try:
        return with_intervals(task, choose_intervals(numbers(rows)))
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error


def _parts(parts: dict[str, Parts], unseen: Unseen | None, options: Options) -> Iterator[_Part]:
    """All parts of the data sets, in order; the rows of each in a random one."""
    for name, part in parts.items():
        divided: dict[str, list[tuple[Row, int | None]]] = {}
        if unseen is None:
            for split, rows in part.rows.items():
                divided[split] = [(row, None) for row in rows]
        else:
            for label, group in unseen.rows[name].items():
                split = TRAIN if label == KNOWN else TEST
                divided.setdefault(split, []).extend((row, UNSEEN[label]) for row in group)
        for split, pairs in divided.items():
            order = _generator(options.seed, f"{name}-{split}").permutation(len(pairs))
            yield _Part(part.source, split, [pairs[place] for place in order[: options.limit]])


def _instructions(
    part: _Part, tasks: dict[str, Task], book: PropertyBook, options: Options, bad: list[str]
) -> Iterator[Instruction]:
    """The records of a part; a row with a molecule that no model can read is named in ``bad``."""
    for row, unseen in part.rows:
        try:
            known = [
                book.properties(smiles, without=part.source.reveals)[: options.properties]
                for smiles in row.molecules
            ]
        except MoleculeError as error:
            bad.append(f"{part.source.name}:{row.number}: {error}")
            continue
        yield instruct(
            tasks[part.source.name],
            part.source.name,
            part.split,
            row,
            known,
            chain=options.chain,
            unseen=unseen,
        )


def _pairs(
    molecules: Sequence[str], book: PropertyBook, unseen: Unseen | None, options: Options
) -> Iterator[Instruction]:
    """Pairs of random molecules, and some of what is known of each.

    No molecule that was set aside is drawn, and none that cannot be read.
    """
    generator = _generator(options.seed, PAIRS)
    task = get_task(PAIR_TASK)
    for number in range(1, options.pairs + 1):
        drawn = [_draw(molecules, book, unseen, options, generator) for _ in task.roles]
        row = Row(number, tuple(smiles for smiles, _ in drawn), None)
        yield instruct_pair(task, TRAIN, row, [told for _, told in drawn])


def _draw(
    molecules: Sequence[str],
    book: PropertyBook,
    unseen: Unseen | None,
    options: Options,
    generator: np.random.Generator,
) -> tuple[str, list[Property]]:
    """A molecule and some of its properties, each as likely as the other ones, in their order."""
    for _ in range(_DRAWS):
        smiles = molecules[int(generator.integers(len(molecules)))]
        if unseen is not None and unseen.is_aside(smiles):
            continue
        with suppress(MoleculeError):
            known = book.properties(smiles)
            places = generator.permutation(len(known))[: options.properties]
            return smiles, [known[place] for place in sorted(places)]
    raise ValueError(f"none of {_DRAWS} molecules drawn from the libraries can be used")


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def _watched(
    records: Iterator[Instruction], name: str, total: int, progress: Progress
) -> Iterator[Instruction]:
    progress(name, 0, total)
    for done, record in enumerate(records, 1):
        yield record
        if done % _EVERY == 0:
            progress(name, done, total)
    progress(name, total, total)


def _described(source: Source, task: Task, folder: Path) -> dict[str, Any]:
    """What the manifest says of a data set."""
    described: dict[str, Any] = {
        "file": source.file,
        "sha256": sha256(folder / source.file),
        "task": source.task,
        "licence": source.licence,
    }
    if isinstance(task.kind, Number):
        kind = task.kind
        described["intervals"] = {"width": kind.interval_width, "scale": kind.scale}
    return described


def _files(options: Options) -> list[str]:
    """The files of single molecules that were read."""
    read = [
        CAPTION_FILE,
        *(one.file for one in MOLECULE_PROPERTIES),
        *(LIBRARIES if options.pairs else ()),
    ]
    return sorted(set(read))
