"""From what a user names to a screen that can be run: files, columns, pairs, parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moltc_vllm.screening.inputs import MoleculeColumn, PairTables, find_column
from moltc_vllm.screening.manifest import check_manifest, identity_of, locked, open_manifest
from moltc_vllm.screening.parts import Layout
from moltc_vllm.screening.plan import Limited, Plan, Product, Shuffled, Triangle, Zip
from moltc_vllm.screening.row_store import RowStore, build_row_store
from moltc_vllm.screening.run import Screen
from moltc_vllm.tables.table_readers import Table, TableError, open_table
from moltc_vllm.tasks import Task, get_task
from moltc_vllm.utils.atomic_files import sha256

PairingMode = Literal["product", "zip", "triangle"]
ProcessingOrder = Literal["given", "random"]

PART_ROWS = 5_000
"""Pairs of a part: what a kill at the worst moment costs."""

BLOCK = 1_024
"""Second molecules that are worked off together; they stay encoded meanwhile."""

Tell = Callable[[str, int], None]
"""Is told of a table and how many of its rows have been read."""


@dataclass(frozen=True, slots=True)
class ScreenConfig:
    """What is to be screened.

    Attributes:
        task: Name of what is asked about every pair.
        out: Folder of the answers.
        pairs: File with both molecules of a pair in each row; or else
        left: File of first molecules, and
        right: File of second molecules; none for ``triangle``.
        columns: Which columns have them, of ``pairs`` or of ``left`` and ``right``.
        how: How ``left`` and ``right`` are paired: all with all, row by row, or every two of
            ``left``.
        question: For a task that takes one.
        order: Of work; in a random one, the first so many pairs are a sample of all.
        seed: Of a random order.
        limit: Only the first so many pairs in the order of work.
        text: Keep the model's own words.
        part_rows: Pairs of a part.
        block: Second molecules that are worked off together.
        retry_errors: Ask again about pairs that ended in an error.
    """

    task: str
    out: Path
    pairs: Path | None = None
    left: Path | None = None
    right: Path | None = None
    columns: tuple[str | None, str | None] = (None, None)
    how: PairingMode = "product"
    question: str | None = None
    order: ProcessingOrder = "given"
    seed: int = 0
    limit: int | None = None
    text: bool = False
    part_rows: int = PART_ROWS
    block: int = BLOCK
    retry_errors: bool = False


@dataclass(frozen=True, slots=True)
class PreparedScreen:
    """A screen, and whether it was begun before."""

    screen: Screen
    resumed: bool


def prepare(
    config: ScreenConfig, model: Mapping[str, Any], tell: Tell = lambda name, rows: None
) -> PreparedScreen:
    """Open or make the folder of a screen.

    Tables are copied to the folder once, in a form that can be read from any place.

    Args:
        config: What is to be screened.
        model: What its answers depend on; values of JSON.
        tell: Is told of tables that are read.

    Raises:
        UnknownTaskError: If there is no such task.
        PromptError: If the task is not about two molecules, or lacks its question.
        TableError: If a file cannot be read, or its column is not clear.
        ManifestError: If the folder holds another screen.
        ValueError: If files are missing, or a number is out of range.
    """
    task = get_task(config.task)
    task.check(2, config.question)
    if min(config.part_rows, config.block, 1 if config.limit is None else config.limit) < 1:
        raise ValueError("limit, part_rows and block are 1 or more")
    tables = {name: open_table(path) for name, path in _files(config).items()}
    places = _columns(config, tables)
    checksums = {name: sha256(table.path) for name, table in tables.items()}
    settings = {
        "task": config.task,
        "question": config.question,
        "prompt": _prompt_version(task),
        "model": dict(model),
        "files": {
            name: {"name": table.path.name, "sha256": checksums[name]}
            for name, table in tables.items()
        },
        "columns": [table.columns[place] for table, place in places],
        "how": config.how if config.pairs is None else "pairs",
        "order": config.order,
        "seed": config.seed if config.order == "random" else None,
        "limit": config.limit,
        "text": config.text,
        "part_rows": config.part_rows,
        "block": config.block,
    }
    check_manifest(config.out, settings)
    with locked(config.out):
        stores = {
            name: _row_store(config.out, f"{name}-{checksums[name][:16]}", table, tell)
            for name, table in tables.items()
        }
    inputs = _inputs(config, stores, [place for _, place in places])
    layout = Layout(inputs, task, text=config.text)
    plan = _plan(config, inputs)
    if config.order == "random":
        plan = Shuffled(plan, config.seed)
    resumed = open_manifest(config.out, settings)  # last: what cannot be prepared is not begun
    screen = Screen(
        folder=config.out,
        task=task,
        question=config.question,
        plan=plan if config.limit is None else Limited(plan, config.limit),
        inputs=inputs,
        layout=layout,
        part_rows=config.part_rows,
        identity=identity_of(settings),
    )
    if config.retry_errors:
        with locked(config.out):
            screen.retry_errors_in_parts()
    return PreparedScreen(screen, resumed)


def _files(config: ScreenConfig) -> dict[str, Path]:
    """The files of a config by what they are."""
    both = config.left is not None and (config.right is not None) != (config.how == "triangle")
    if (config.pairs is not None) == (config.left is not None) or (
        config.pairs is None and not both
    ):
        raise ValueError(
            "a screen needs a file of pairs, or a left and a right one, or a left one alone whose "
            "every two molecules are paired (triangle)"
        )
    named = {"pairs": config.pairs, "left": config.left, "right": config.right}
    if config.pairs is not None and config.right is not None:
        raise ValueError("a file of pairs needs no right one")
    return {name: path for name, path in named.items() if path is not None}


def _columns(config: ScreenConfig, tables: Mapping[str, Table]) -> list[tuple[Table, int]]:
    """The table and column of each of the two molecules."""
    if config.pairs is None:
        left = tables["left"]
        both = [left, tables.get("right", left)]
        return [
            (table, find_column(table.path.name, table.columns, name))
            for table, name in zip(both, config.columns, strict=True)
        ]
    table = tables["pairs"]
    wanted = config.columns
    if wanted == (None, None):
        found = [name for name in table.columns if "smiles" in name.lower()]
        if len(found) != 2:
            raise TableError(
                f"{table.path.name}: which two columns have the molecules is not clear, name "
                f"them; there are {', '.join(table.columns)}"
            )
        wanted = (found[0], found[1])
    return [(table, find_column(table.path.name, table.columns, name)) for name in wanted]


def _row_store(out: Path, name: str, table: Table, tell: Tell) -> RowStore:
    folder = out / ".rows"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.arrow"
    if not path.exists():
        build_row_store(table, path, lambda rows: tell(table.path.name, rows))
    return RowStore(path)


def _inputs(config: ScreenConfig, stores: Mapping[str, RowStore], places: list[int]) -> PairTables:
    first, second = places
    if config.pairs is not None:
        store = stores["pairs"]
        return PairTables(MoleculeColumn(store, first, "row"), MoleculeColumn(store, second, "row"))
    left = stores["left"]
    right = stores.get("right", left)
    return PairTables(
        MoleculeColumn(left, first, "left row"), MoleculeColumn(right, second, "right row")
    )


def _plan(config: ScreenConfig, inputs: PairTables) -> Plan:
    first, second = len(inputs.first.store), len(inputs.second.store)
    if config.pairs is not None:
        return Zip(first)
    match config.how:
        case "product":
            return Product(first, second, config.block)
        case "triangle":
            return Triangle(first, config.block)
        case "zip":
            if first != second:
                raise ValueError(f"row by row, but the files have {first:,} and {second:,} rows")
            return Zip(first)


def _prompt_version(task: Task) -> str:
    """Changes when a later version asks about a task, or reads its answers, in other words."""
    text = f"{task.question}\n{task.kind}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
