"""Validate a screening configuration, index its tables and build a `Screen`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from moltc_vllm.screening.answer_columns import AnswerColumns
from moltc_vllm.screening.config import PairingMode, ProcessingOrder, ScreenConfig
from moltc_vllm.screening.inputs import MoleculeColumn, PairTables, find_molecule_column
from moltc_vllm.screening.manifest import (
    MANIFEST,
    check_manifest,
    identity_of,
    lock_folder,
    open_manifest,
    read_manifest,
)
from moltc_vllm.screening.parts import PartLayout
from moltc_vllm.screening.plan import (
    BothDirections,
    Limited,
    Plan,
    Product,
    Shuffled,
    Triangle,
    Zip,
)
from moltc_vllm.screening.row_store import RowStore, build_row_store
from moltc_vllm.screening.screen import Screen
from moltc_vllm.tables import SMILES, Table, TableError, open_table
from moltc_vllm.tasks import Number, Task, get_task
from moltc_vllm.utils.atomic_files import sha256
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

_STORES = ".rows"

IndexingCallback: TypeAlias = Callable[[str, int], None]
"""Callback that receives a table's name and the number of its rows read so far."""


@dataclass(frozen=True, slots=True)
class PreparedScreen:
    """A screen that is ready to run.

    Attributes:
        screen: The screen.
        resumed: Whether its folder already held the screen.
    """

    screen: Screen
    resumed: bool


@dataclass(frozen=True, slots=True)
class _InputFile:
    """An input table with its checksum.

    Attributes:
        table: The opened table.
        sha256: Checksum of the file.
    """

    table: Table
    sha256: str


def prepare(
    config: ScreenConfig,
    model: Mapping[str, Any],
    on_rows: IndexingCallback = lambda name, rows: None,
) -> PreparedScreen:
    """Validate the configuration, index the input tables and build the screen.

    The tables are copied into the output folder once, in a format with random access to rows.

    Args:
        config: Settings of the screen.
        model: Description of the model that answers, as JSON values; stored in the manifest.
        on_rows: Callback that receives the progress of copying the tables.

    Raises:
        UnknownTaskError: If the task does not exist.
        PromptError: If the task does not take two molecules, or lacks its question.
        TableError: If a file cannot be read, or its molecule column cannot be determined.
        ManifestError: If the folder holds a screen with different settings.
        ValueError: If files are missing, or their combination is not allowed.
    """
    task = get_task(config.task)
    task.check(2, config.question)
    tables = {role: open_table(path) for role, path in config.files().items()}
    columns = _find_columns(config, tables)
    files = {role: _InputFile(table, sha256(table.path)) for role, table in tables.items()}
    answer_columns, answer_settings = _answer_columns(config, task)
    directions = _directions(config, task)
    settings = _manifest_settings(config, task, model, files, columns) | answer_settings
    if directions == 2:
        settings["directions"] = directions
    check_manifest(config.out, settings)
    inputs = _index_tables(config, files, columns, on_rows)
    plan = _build_plan(config, inputs, directions)
    # The manifest is written last, so that a screen that cannot be prepared leaves none behind.
    resumed = open_manifest(config.out, settings)
    screen = Screen(
        folder=config.out,
        task=task,
        question=config.question,
        plan=plan,
        inputs=inputs,
        layout=PartLayout(inputs, answer_columns),
        part_rows=config.part_rows,
        identity=identity_of(settings),
    )
    if config.retry_errors:
        with lock_folder(config.out):
            screen.mark_errors_for_retry()
    return PreparedScreen(screen, resumed)


def _find_columns(config: ScreenConfig, tables: Mapping[str, Table]) -> tuple[int, int]:
    """Return the indices of the columns that hold the first and the second molecules."""
    if "pairs" in tables:
        first = second = tables["pairs"]
        names = config.columns
        if names == (None, None):
            names = _find_pair_columns(first)
    else:
        first = tables["left"]
        second = tables.get("right", first)
        names = config.columns
    return (
        find_molecule_column(first.path.name, first.columns, names[0]),
        find_molecule_column(second.path.name, second.columns, names[1]),
    )


def _find_pair_columns(table: Table) -> tuple[str, str]:
    names = [name for name in table.columns if SMILES in name.lower()]
    if len(names) != 2:
        raise TableError(
            f"{table.path.name}: cannot tell which two columns hold the molecules, name them with "
            f"--columns; the columns are {', '.join(table.columns)}"
        )
    return names[0], names[1]


def _manifest_settings(
    config: ScreenConfig,
    task: Task,
    model: Mapping[str, Any],
    files: Mapping[str, _InputFile],
    columns: tuple[int, int],
) -> dict[str, Any]:
    """Return every setting that determines the rows and answers, as JSON values."""
    tables = [file.table for file in files.values()]
    first, second = tables[0], tables[-1]  # the same table for pairs and for a triangle
    is_random = config.order is ProcessingOrder.random
    return {
        "task": config.task,
        "question": config.question,
        "prompt": _prompt_version(task),
        "model": dict(model),
        "files": {
            role: {"name": file.table.path.name, "sha256": file.sha256}
            for role, file in files.items()
        },
        "columns": [first.columns[columns[0]], second.columns[columns[1]]],
        "how": "pairs" if "pairs" in files else config.how.value,
        "order": config.order.value,
        "seed": config.seed if is_random else None,
        "limit": config.limit,
        "text": config.text,
        "part_rows": config.part_rows,
        "block": config.block,
    }


def _answer_columns(config: ScreenConfig, task: Task) -> tuple[AnswerColumns, dict[str, Any]]:
    """Return the answer columns of a new or a recorded screen, and their settings in the manifest.

    Version 0.1 recorded no columns; the settings of such a screen stay as they were, because the
    identity of its parts depends on them.
    """
    coverage = config.coverage if isinstance(task.kind, Number) else None
    names = None
    if (config.out / MANIFEST).exists():
        recorded = read_manifest(config.out)["screen"]
        if "answer_columns" not in recorded:
            changed = {} if coverage in (None, DEFAULT_COVERAGE) else {"coverage": coverage}
            return AnswerColumns.of_version_0_1(task, text=config.text), changed
        # With another task or text the recorded columns do not matter: the manifest is refused.
        if (recorded.get("task"), recorded.get("text")) == (task.name, config.text):
            names = recorded["answer_columns"]
    columns = AnswerColumns(task, names, text=config.text)
    return columns, {"coverage": coverage, "answer_columns": list(columns.names)}


def _directions(config: ScreenConfig, task: Task) -> int:
    """Return the number of orders in which every two molecules of a triangle are asked.

    A screen that an earlier version started has one direction and keeps it.
    """
    if config.how is not PairingMode.triangle or config.pairs is not None or not task.directed:
        return 1
    if (config.out / MANIFEST).exists():
        recorded: int = read_manifest(config.out)["screen"].get("directions", 1)
        return recorded
    return 2


def _prompt_version(task: Task) -> str:
    """Return a checksum of the task's wording and answer format, which releases may change."""
    text = f"{task.question}\n{task.kind}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _index_tables(
    config: ScreenConfig,
    files: Mapping[str, _InputFile],
    columns: tuple[int, int],
    on_rows: IndexingCallback,
) -> PairTables:
    """Copy the tables into row stores, unless an earlier call did, and open them."""
    folder = config.out / _STORES
    with lock_folder(config.out):
        folder.mkdir(exist_ok=True)
        stores = {
            role: _open_row_store(folder / f"{role}-{file.sha256[:16]}.arrow", file.table, on_rows)
            for role, file in files.items()
        }
    if "pairs" in stores:
        store = stores["pairs"]
        return PairTables(
            MoleculeColumn(store, columns[0], "row"), MoleculeColumn(store, columns[1], "row")
        )
    left = stores["left"]
    right = stores.get("right", left)
    return PairTables(
        MoleculeColumn(left, columns[0], "left row"),
        MoleculeColumn(right, columns[1], "right row"),
    )


def _open_row_store(path: Path, table: Table, on_rows: IndexingCallback) -> RowStore:
    if not path.exists():
        build_row_store(table, path, lambda rows: on_rows(table.path.name, rows))
    return RowStore(path)


def _build_plan(config: ScreenConfig, inputs: PairTables, directions: int) -> Plan:
    """Return the plan of all pairs to process, in processing order."""
    plan = _pairing(config, inputs)
    if directions == 2:
        plan = BothDirections(plan)
    if config.order is ProcessingOrder.random:
        plan = Shuffled(plan, config.seed)
    return plan if config.limit is None else Limited(plan, config.limit)


def _pairing(config: ScreenConfig, inputs: PairTables) -> Plan:
    first, second = len(inputs.first.store), len(inputs.second.store)
    if inputs.is_pair_table:
        return Zip(first)
    match config.how:
        case PairingMode.product:
            return Product(first, second, config.block)
        case PairingMode.triangle:
            return Triangle(first, config.block)
        case PairingMode.zip:
            if first != second:
                raise ValueError(
                    f"pairing row by row needs files of equal length, not {first:,} and "
                    f"{second:,} rows"
                )
            return Zip(first)
