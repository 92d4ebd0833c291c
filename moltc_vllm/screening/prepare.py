"""From what a user names to a screen that can be run: files, columns, pairs, parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moltc_vllm.files import sha256
from moltc_vllm.screening.inputs import Inputs, Side, find_column
from moltc_vllm.screening.manifest import check_manifest, identity_of, locked, open_manifest
from moltc_vllm.screening.parts import Layout
from moltc_vllm.screening.plan import Limited, Plan, Product, Shuffled, Triangle, Zip
from moltc_vllm.screening.reading import Table, TableError, open_table
from moltc_vllm.screening.run import Screen
from moltc_vllm.screening.shelf import Shelf, fill_shelf
from moltc_vllm.tasks import Task, get_task

How = Literal["product", "zip", "triangle"]
Order = Literal["given", "random"]

PART_ROWS = 5_000
"""Pairs of a part: what a kill at the worst moment costs."""

BLOCK = 1_024
"""Second molecules that are worked off together; they stay encoded meanwhile."""

Tell = Callable[[str, int], None]
"""Is told of a table and how many of its rows have been read."""


@dataclass(frozen=True, slots=True)
class Wish:
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
    how: How = "product"
    question: str | None = None
    order: Order = "given"
    seed: int = 0
    limit: int | None = None
    text: bool = False
    part_rows: int = PART_ROWS
    block: int = BLOCK
    retry_errors: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A screen, and whether it was begun before."""

    screen: Screen
    goes_on: bool


def prepare(wish: Wish, model: Mapping[str, Any], tell: Tell = lambda name, rows: None) -> Prepared:
    """Open or make the folder of a screen.

    Tables are copied to the folder once, in a form that can be read from any place.

    Args:
        wish: What is to be screened.
        model: What its answers depend on; values of JSON.
        tell: Is told of tables that are read.

    Raises:
        UnknownTaskError: If there is no such task.
        PromptError: If the task is not about two molecules, or lacks its question.
        TableError: If a file cannot be read, or its column is not clear.
        ManifestError: If the folder holds another screen.
        ValueError: If files are missing, or a number is out of range.
    """
    task = get_task(wish.task)
    task.check(2, wish.question)
    if min(wish.part_rows, wish.block, 1 if wish.limit is None else wish.limit) < 1:
        raise ValueError("limit, part_rows and block are 1 or more")
    tables = {name: open_table(path) for name, path in _files(wish).items()}
    places = _columns(wish, tables)
    checksums = {name: sha256(table.path) for name, table in tables.items()}
    settings = {
        "task": wish.task,
        "question": wish.question,
        "prompt": _prompt_version(task),
        "model": dict(model),
        "files": {
            name: {"name": table.path.name, "sha256": checksums[name]}
            for name, table in tables.items()
        },
        "columns": [table.columns[place] for table, place in places],
        "how": wish.how if wish.pairs is None else "pairs",
        "order": wish.order,
        "seed": wish.seed if wish.order == "random" else None,
        "limit": wish.limit,
        "text": wish.text,
        "part_rows": wish.part_rows,
        "block": wish.block,
    }
    check_manifest(wish.out, settings)
    with locked(wish.out):
        shelves = {
            name: _shelf(wish.out, f"{name}-{checksums[name][:16]}", table, tell)
            for name, table in tables.items()
        }
    inputs = _inputs(wish, shelves, [place for _, place in places])
    layout = Layout(inputs, task, text=wish.text)
    plan = _plan(wish, inputs)
    if wish.order == "random":
        plan = Shuffled(plan, wish.seed)
    goes_on = open_manifest(wish.out, settings)  # last: what cannot be prepared is not begun
    screen = Screen(
        folder=wish.out,
        task=task,
        question=wish.question,
        plan=plan if wish.limit is None else Limited(plan, wish.limit),
        inputs=inputs,
        layout=layout,
        part_rows=wish.part_rows,
        identity=identity_of(settings),
    )
    if wish.retry_errors:
        with locked(wish.out):
            screen.ask_again()
    return Prepared(screen, goes_on)


def _files(wish: Wish) -> dict[str, Path]:
    """The files of a wish by what they are."""
    both = wish.left is not None and (wish.right is not None) != (wish.how == "triangle")
    if (wish.pairs is not None) == (wish.left is not None) or (wish.pairs is None and not both):
        raise ValueError(
            "a screen needs a file of pairs, or a left and a right one, or a left one alone whose "
            "every two molecules are paired (triangle)"
        )
    named = {"pairs": wish.pairs, "left": wish.left, "right": wish.right}
    if wish.pairs is not None and wish.right is not None:
        raise ValueError("a file of pairs needs no right one")
    return {name: path for name, path in named.items() if path is not None}


def _columns(wish: Wish, tables: Mapping[str, Table]) -> list[tuple[Table, int]]:
    """The table and column of each of the two molecules."""
    if wish.pairs is None:
        left = tables["left"]
        both = [left, tables.get("right", left)]
        return [
            (table, find_column(table.path.name, table.columns, name))
            for table, name in zip(both, wish.columns, strict=True)
        ]
    table = tables["pairs"]
    wanted = wish.columns
    if wanted == (None, None):
        found = [name for name in table.columns if "smiles" in name.lower()]
        if len(found) != 2:
            raise TableError(
                f"{table.path.name}: which two columns have the molecules is not clear, name "
                f"them; there are {', '.join(table.columns)}"
            )
        wanted = (found[0], found[1])
    return [(table, find_column(table.path.name, table.columns, name)) for name in wanted]


def _shelf(out: Path, name: str, table: Table, tell: Tell) -> Shelf:
    folder = out / ".rows"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.arrow"
    if not path.exists():
        fill_shelf(table, path, lambda rows: tell(table.path.name, rows))
    return Shelf(path)


def _inputs(wish: Wish, shelves: Mapping[str, Shelf], places: list[int]) -> Inputs:
    first, second = places
    if wish.pairs is not None:
        shelf = shelves["pairs"]
        return Inputs(Side(shelf, first, "row"), Side(shelf, second, "row"))
    left = shelves["left"]
    right = shelves.get("right", left)
    return Inputs(Side(left, first, "left row"), Side(right, second, "right row"))


def _plan(wish: Wish, inputs: Inputs) -> Plan:
    first, second = len(inputs.first.shelf), len(inputs.second.shelf)
    if wish.pairs is not None:
        return Zip(first)
    match wish.how:
        case "product":
            return Product(first, second, wish.block)
        case "triangle":
            return Triangle(first, wish.block)
        case "zip":
            if first != second:
                raise ValueError(f"row by row, but the files have {first:,} and {second:,} rows")
            return Zip(first)


def _prompt_version(task: Task) -> str:
    """Changes when a later version asks about a task, or reads its answers, in other words."""
    text = f"{task.question}\n{task.kind}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
