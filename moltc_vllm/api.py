"""Screens from Python: ``moltc_vllm.screen``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.engines.factory import EngineName, describe_model, open_engine
from moltc_vllm.screening.finalize import finalize
from moltc_vllm.screening.parts import read_part
from moltc_vllm.screening.prepare import (
    BLOCK,
    PART_ROWS,
    PairingMode,
    ProcessingOrder,
    ScreenConfig,
    prepare,
)
from moltc_vllm.screening.run import LocalExecutor, NullProgress, PartExecutor, Screen
from moltc_vllm.screening.summary import Ranking, Summary
from moltc_vllm.tasks.engine import Engine

Molecules: TypeAlias = Path | str | Sequence[str] | pa.Table
"""A file of molecules, SMILES, or a table with a column of them."""

Pairs: TypeAlias = Path | str | Sequence[tuple[str, str]] | pa.Table
"""A file of pairs, pairs of SMILES, or a table with two columns of them."""


class Screened:
    """The answers of a screen, one row for each pair; they are made while they are read.

    A row is a `dict` with the columns of the screen's Parquet parts: ``row``, the input's own,
    ``status``, ``error``, ``value`` or ``label`` with the rest of the answer, ``confidence``.

    Attributes:
        folder: Of the parts; gone with this object, if none was named.
    """

    def __init__(
        self, screen: Screen, maker: PartExecutor | None, temporary: Sequence[Any] = ()
    ) -> None:
        self._screen, self._maker = screen, maker
        self._temporary = temporary
        self._open: Generator[pa.Table, None, None] | None = None
        self.folder = screen.folder

    def __len__(self) -> int:
        """PairingMode many pairs there are."""
        return len(self._screen.plan)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every row; those that are there already first, the others as parts become whole.

        Raises:
            Exception: What the engine raises; parts that were whole by then stay.
        """
        with contextlib.closing(self._tables()) as tables:  # lets the folder go when reading ends
            for table in tables:
                yield from table.to_pylist()

    def to_arrow(self) -> pa.Table:
        """All rows at once, in the order of work: they have to fit into memory."""
        self._complete()
        screen = self._screen
        tables = [read_part(screen.folder, number) for number in range(screen.parts)]
        return pa.concat_tables(tables) if tables else screen.layout.schema.empty_table()

    def finish(self, ranking: Ranking | None = None) -> Summary:
        """Answer what is left, and write ``summary.json``, ``top.csv`` and ``report.html``."""
        (ranking or Ranking()).check(self._screen.task)
        self._complete()
        return finalize(self._screen, ranking or Ranking())

    def _complete(self) -> None:
        for _ in self._tables():
            pass

    def _tables(self) -> Generator[pa.Table, None, None]:
        """The parts; an earlier reading ends, for an engine answers one call at a time."""
        if self._open is not None:
            self._open.close()
        self._open = self._read()
        return self._open

    def _read(self) -> Generator[pa.Table, None, None]:
        screen = self._screen
        missing = screen.missing()
        for number in sorted(set(range(screen.parts)) - set(missing)):
            yield read_part(screen.folder, number)
        if missing:
            assert self._maker is not None
            for number in self._maker.make(screen, NullProgress(), lambda: False, missing):
                yield read_part(screen.folder, number)


def screen(
    task: str,
    pairs: Pairs | None = None,
    *,
    left: Molecules | None = None,
    right: Molecules | None = None,
    columns: tuple[str | None, str | None] = (None, None),
    how: PairingMode = "product",
    question: str | None = None,
    order: ProcessingOrder = "given",
    seed: int = 0,
    limit: int | None = None,
    text: bool = False,
    both_orders: bool = False,
    out: Path | str | None = None,
    model: Path | str | None = None,
    endpoint: str | None = None,
    engine: EngineName | str | Engine | PartExecutor = EngineName.vllm,
    part_rows: int = PART_ROWS,
    block: int = BLOCK,
    retry_errors: bool = False,
) -> Screened:
    """Ask about every pair; what ``moltc screen`` does.

    ::

        for row in moltc_vllm.screen("solvation", left=["CCO", "CCN"], right=["O"]):
            print(row["left_smiles"], row["value"], row["unit"])

    Args:
        task: What is asked, e.g. ``solvation``.
        pairs: Both molecules of each pair; or else
        left: First molecules, and
        right: Second molecules; none for ``triangle``.
        columns: Which columns have them, where that is not clear.
        how: How ``left`` and ``right`` are paired: all with all, row by row, or every two of
            ``left``.
        question: For a task that takes one.
        order: Of work: as given, or random.
        seed: Of a random order.
        limit: Only the first so many pairs in that order.
        text: Keep the model's own words; slower, as all of them are generated.
        both_orders: Ask symmetric yes-or-no questions in both orders.
        out: Folder of the answers, where the same call goes on; default: a temporary one.
        model: Checkpoint folder; default: the shipped one.
        endpoint: URL of a running server, in place of a model.
        engine: ``vllm`` or ``torch``, or one that is open already, or a
            `moltc_vllm.deploy.ray_data.Cluster` whose opening says the same of ``text`` and
            ``both_orders``; with ``out`` its ``model`` or ``endpoint`` has to be named, too.
        part_rows: Pairs of a part.
        block: Second molecules that are worked off together.
        retry_errors: Ask again about pairs that ended in an error.

    Raises:
        ValueError: If something is missing, or does not go together; its subclasses are
            `UnknownTaskError`, `TableError`, `ManifestError` and `CheckpointError`.
        ServerError: If the server at ``endpoint`` is none of ours.
        httpx.HTTPError: If it cannot be reached.
    """
    from moltc_vllm.engines.symmetric import SymmetrizedEngine

    temporary: list[Any] = []

    def folder() -> Path:
        made = tempfile.TemporaryDirectory(prefix="moltc-screen-")
        temporary.append(made)
        return Path(made.name)

    def file(name: str, given: Molecules | Pairs | None, names: Sequence[str]) -> Path | None:
        if given is None or isinstance(given, Path | str):
            return None if given is None else Path(given)
        path = folder() / f"{name}.parquet"
        pa_parquet.write_table(_table(given, names), path)
        return path

    config = ScreenConfig(
        task=task,
        out=folder() / "out" if out is None else Path(out),
        pairs=file("pairs", pairs, ("smiles_1", "smiles_2")),
        left=file("left", left, ("smiles",)),
        right=file("right", right, ("smiles",)),
        columns=columns,
        how=how,
        question=question,
        order=order,
        seed=seed,
        limit=limit,
        text=text,
        part_rows=part_rows,
        block=block,
        retry_errors=retry_errors,
    )
    folder_of = None if model is None else Path(model)
    ready = None if isinstance(engine, str) else engine
    if ready is None or model is not None or endpoint is not None:
        described = describe_model(task, folder_of, endpoint)
    elif out is None:
        described = {"engine": type(ready).__name__}
    else:
        raise ValueError(
            "name the model of an open engine, so that `out` says whose answers it has"
        )
    prepared = prepare(config, {**described, "both_orders": both_orders})
    if prepared.screen.missing() and ready is None:
        ready = open_engine(folder_of, endpoint, EngineName(str(engine)), score=not text)
    if ready is None or isinstance(ready, PartExecutor):
        opening = getattr(ready, "opening", None)
        if opening and (opening.score, opening.both_orders) != (not text, both_orders):
            raise ValueError("text or both_orders is not what the cluster's opening says")
        if opening and opening.model != folder_of:
            raise ValueError(f"the cluster's opening has the model {opening.model}, not {model}")
        return Screened(prepared.screen, ready, temporary)
    maker = LocalExecutor(SymmetrizedEngine(ready) if both_orders else ready)
    return Screened(prepared.screen, maker, temporary)


def _table(given: Sequence[Any] | pa.Table, names: Sequence[str]) -> pa.Table:
    """What was given as objects, as a table."""
    if isinstance(given, pa.Table):
        return given
    rows = [tuple(one) if isinstance(one, tuple | list) else (one,) for one in given]
    if wrong := next((row for row in rows if len(row) != len(names)), None):
        raise ValueError(f"{wrong!r} is not {len(names)} SMILES")
    # What is no text (None, NaN of a table) is a molecule that is missing.
    texts = [[cell if isinstance(cell, str) else None for cell in row] for row in rows]
    cells = zip(*texts, strict=True) if rows else [()] * len(names)
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(names, cells, strict=True)}
    )
