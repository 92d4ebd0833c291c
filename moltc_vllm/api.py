"""Python API: `predict` for a list of pairs, `screen` for libraries."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from moltc_vllm.engines.factory import EngineName, describe_model, open_engine
from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.screening.config import PairingMode, ProcessingOrder, Ranking, ScreenConfig
from moltc_vllm.screening.finalize import finalize
from moltc_vllm.screening.parts import read_part
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.screening.progress import NullProgress
from moltc_vllm.screening.run import LocalExecutor, PartExecutor
from moltc_vllm.screening.screen import Screen
from moltc_vllm.screening.summary import Summary
from moltc_vllm.screening.temporary_tables import TemporaryTables, smiles_or_none
from moltc_vllm.tasks import Answer, PromptError, Task, get_task
from moltc_vllm.tasks.engine import Engine, EngineError, Pair
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE, check_coverage
from moltc_vllm.utils.deprecation import warn_renamed
from moltc_vllm.utils.standardization import Standardization

Molecules: TypeAlias = Path | str | Sequence[str] | pa.Table
"""A file of molecules, a list of SMILES, or a table with a column of SMILES."""

Pairs: TypeAlias = Path | str | Sequence[tuple[str, str]] | pa.Table
"""A file of pairs, a list of pairs of SMILES, or a table with two columns of SMILES."""


def predict(
    task: str,
    pairs: Iterable[str | Sequence[str]],
    *,
    model: Path | str | None = None,
    endpoint: str | None = None,
    engine: EngineName | str | Engine = EngineName.vllm,
    question: str | None = None,
    beams: int = 1,
    both_orders: bool = False,
    coverage: float = DEFAULT_COVERAGE,
    standardize: Standardization | None = None,
) -> list[Answer]:
    """Answer a task for a list of pairs; use `screen` for more pairs than fit into memory.

    ::

        for answer in moltc_vllm.predict("solvation", [("CCO", "O"), ("c1ccccc1", "O")]):
            print(answer.value, answer.low, answer.high, answer.unit)

    Args:
        task: Name of the task, e.g. ``solvation``.
        pairs: Tuples of SMILES, one per molecule of the task; a string stands for one molecule.
        model: Checkpoint folder; default: the shipped one.
        endpoint: URL of a running server, used in place of a model.
        engine: Engine to open, ``vllm`` or ``torch``, or an engine that is already open.
        question: Question of the user, for a task that takes one.
        beams: Width of the beam search; 1 is greedy decoding.
        both_orders: Whether to average symmetric yes/no tasks over both orders of the molecules.
        coverage: Coverage of the prediction intervals ``low`` to ``high``.
        standardize: How molecules are standardized: ``as-drawn``, ``cleanup`` or ``parent``;
            default: the choice of the checkpoint.

    Returns:
        One answer per pair, in the given order. The answer for an invalid molecule has the status
        ``bad_molecule`` and gives the reason in ``error``.

    Raises:
        ValueError: If the arguments do not fit the task or each other; subclasses are
            `UnknownTaskError`, `PromptError` and `CheckpointError`.
        EngineError: If the engine fails as a whole.
        ServerError: If the server refuses the request.
        httpx.HTTPError: If the server cannot be reached.
    """
    known_task = get_task(task)
    _warn_of_caution(known_task)
    requests = _build_requests(known_task, pairs, question)
    if isinstance(engine, str):
        if not requests:
            return []
        engine = _open_engine(
            engine, model, endpoint, beams=beams, coverage=coverage, standardize=standardize
        )
    elif model is not None or endpoint is not None or beams != 1:
        raise ValueError("model, endpoint and beams do not apply to an engine that is already open")
    else:
        _check_open_engine(engine, coverage, standardize)
    if both_orders:
        engine = SymmetrizedEngine(engine)
    return _collect_answers(known_task, engine, requests, question)


def _warn_of_caution(task: Task) -> None:
    if task.caution is not None:
        warnings.warn(f"{task.name} is {task.caution}", stacklevel=3)


def _build_requests(
    task: Task, pairs: Iterable[str | Sequence[str]], question: str | None
) -> list[Pair]:
    if isinstance(pairs, str | Path):
        raise TypeError("pairs must be a list of tuples of SMILES; use moltc_vllm.screen for files")
    task.check(len(task.roles), question)
    requests = []
    for index, pair in enumerate(pairs):
        # A missing molecule is an empty SMILES, which is answered as a bad molecule.
        molecules = tuple(smiles or "" for smiles in smiles_or_none(pair))
        try:
            task.check(len(molecules), question)
        except PromptError as error:
            raise PromptError(f"pairs[{index}]: {error}") from error
        requests.append(Pair(index, molecules))
    return requests


def _collect_answers(
    task: Task, engine: Engine, requests: Sequence[Pair], question: str | None
) -> list[Answer]:
    """Submit the pairs and return their answers in order."""
    answers: dict[int, Answer] = {}
    for pair, answer in engine.submit(task.name, requests, question):
        if pair.row in answers or not 0 <= pair.row < len(requests):
            raise EngineError(
                f"the engine answered pair {pair.row} twice, or the pair was never submitted"
            )
        answers[pair.row] = answer
    missing = task.failed("error", "the engine returned no answer")
    return [answers.get(request.row, missing) for request in requests]


def screen(
    task: str,
    pairs: Pairs | None = None,
    *,
    left: Molecules | None = None,
    right: Molecules | None = None,
    columns: tuple[str | None, str | None] = ScreenConfig.columns,
    how: PairingMode | str = ScreenConfig.how,
    question: str | None = None,
    order: ProcessingOrder | str = ScreenConfig.order,
    seed: int = ScreenConfig.seed,
    limit: int | None = ScreenConfig.limit,
    text: bool = ScreenConfig.text,
    coverage: float = ScreenConfig.coverage,
    standardize: Standardization | None = None,
    both_orders: bool = False,
    out: Path | str | None = None,
    model: Path | str | None = None,
    endpoint: str | None = None,
    engine: EngineName | str | Engine | PartExecutor = EngineName.vllm,
    part_rows: int = ScreenConfig.part_rows,
    block: int = ScreenConfig.block,
    retry_errors: bool = ScreenConfig.retry_errors,
) -> Screened:
    """Answer a task for every pair of a table, or of two libraries, like ``moltc screen``.

    ::

        for row in moltc_vllm.screen("solvation", left=["CCO", "CCN"], right=["O"]):
            print(row["left_smiles"], row["value"], row["unit"])

    Args:
        task: Name of the task, e.g. ``solvation``.
        pairs: Both molecules of each pair.
        left: First molecules, if ``pairs`` is not given.
        right: Second molecules; not for the pairing mode ``triangle``.
        columns: Names of the molecule columns, in ``pairs`` or in ``left`` and ``right``; needed
            where the tables have several candidates.
        how: Pairing mode: ``product`` (all of ``left`` with all of ``right``), ``zip`` (row by row)
            or ``triangle`` (every two molecules of ``left``, in both directions if the task's
            answer depends on their order).
        question: Question of the user, for a task that takes one.
        order: Processing order, ``given`` or ``random``; a random order makes a partial run an
            unbiased sample.
        seed: Seed of the random order.
        limit: Largest number of pairs, the first ones in processing order; default: all.
        text: Whether to keep the text that the model generated; slower, because the text is not
            generated otherwise.
        coverage: Coverage of the prediction intervals in the columns ``low`` and ``high``.
        standardize: How molecules are standardized: ``as-drawn``, ``cleanup`` or ``parent``;
            default: the choice of the checkpoint.
        both_orders: Whether to average symmetric yes/no tasks over both orders of the molecules.
        out: Output folder; the same call resumes it. Default: a temporary folder.
        model: Checkpoint folder; default: the shipped one.
        endpoint: URL of a running server, used in place of a model.
        engine: Engine to open, ``vllm`` or ``torch``; or an engine that is already open; or a
            `moltc_vllm.deploy.ray_data.RayDataExecutor` whose engine options match ``model``,
            ``text``, ``coverage`` and ``both_orders``. With ``out``, an open engine needs its
            ``model`` or ``endpoint`` as well, which the folder's manifest records.
        part_rows: Number of pairs per part of the output.
        block: Number of second molecules that are processed together.
        retry_errors: Whether to resubmit the pairs whose status is ``error``.

    Raises:
        ValueError: If an argument is missing or contradicts another one; subclasses are
            `UnknownTaskError`, `PromptError`, `TableError`, `ManifestError` and `CheckpointError`.
        ServerError: If the server at ``endpoint`` is not a moltc-vllm server.
        httpx.HTTPError: If the server cannot be reached.
    """
    _warn_of_caution(get_task(task))
    files = TemporaryTables()
    config = ScreenConfig(
        task=task,
        out=files.new_folder() / "out" if out is None else Path(out),
        pairs=files.path_of("pairs", pairs, ("smiles_1", "smiles_2")),
        left=files.path_of("left", left, ("smiles",)),
        right=files.path_of("right", right, ("smiles",)),
        columns=columns,
        how=PairingMode(how),
        question=question,
        order=ProcessingOrder(order),
        seed=seed,
        limit=limit,
        text=text,
        coverage=coverage,
        part_rows=part_rows,
        block=block,
        retry_errors=retry_errors,
    )
    if not isinstance(engine, str):
        spec = getattr(engine, "engine_spec", None)
        _check_open_engine(engine if spec is None else spec, coverage, standardize)
        standardize = getattr(engine if spec is None else spec, "standardize", standardize)
    if isinstance(engine, str) or model is not None or endpoint is not None:
        folder = None if model is None else Path(model)
        description = describe_model(task, folder, endpoint, standardize)
    elif out is None:
        description = {"engine": type(engine).__name__}
    else:
        raise ValueError(
            "an open engine needs its model or endpoint as well, which the manifest in out records"
        )
    prepared = prepare(config, {**description, "both_orders": both_orders}).screen
    executor: PartExecutor | None = None
    if isinstance(engine, PartExecutor):
        executor = engine
        _check_engine_spec(executor, model, text=text, both_orders=both_orders)
    elif not isinstance(engine, str):
        executor = _local_executor(engine, both_orders)
    elif prepared.missing_parts():
        opened = _open_engine(
            engine, model, endpoint, score=not text, coverage=coverage, standardize=standardize
        )
        executor = _local_executor(opened, both_orders)
    return Screened(prepared, executor, files)


def _open_engine(
    name: str,
    model: Path | str | None,
    endpoint: str | None,
    *,
    beams: int = 1,
    score: bool = False,
    coverage: float = DEFAULT_COVERAGE,
    standardize: Standardization | None = None,
) -> Engine:
    """Open an engine by name; every function of this module opens its engine here."""
    if name not in list(EngineName):
        raise ValueError(f"engine must be one of {', '.join(EngineName)}, not {name!r}")
    folder = None if model is None else Path(model)
    return open_engine(
        folder,
        endpoint,
        EngineName(name),
        beams=beams,
        score=score,
        coverage=coverage,
        standardize=standardize,
    )


def _local_executor(engine: Engine, both_orders: bool) -> LocalExecutor:
    return LocalExecutor(SymmetrizedEngine(engine) if both_orders else engine)


def _check_engine_spec(
    executor: PartExecutor,
    model: Path | str | None,
    *,
    text: bool,
    both_orders: bool,
) -> None:
    """Check that a cluster's engines are opened with the options of this screen."""
    spec = getattr(executor, "engine_spec", None)
    if spec is None:
        return
    if (spec.score, spec.both_orders) != (not text, both_orders):
        raise ValueError("text or both_orders differs from the engine_spec of the executor")
    if spec.model != (None if model is None else Path(model)):
        raise ValueError(f"the executor's engine_spec has the model {spec.model}, not {model}")


def _check_open_engine(
    engine: object, coverage: float, standardize: Standardization | None
) -> None:
    """Check that an engine that is already open has the options that were asked for."""
    check_coverage(coverage)
    own = getattr(engine, "coverage", coverage)
    if own != coverage:
        raise ValueError(f"coverage is {coverage:g}, but the engine was opened with {own:g}")
    opened = getattr(engine, "standardize", None)
    if standardize is not None and opened != standardize:
        raise ValueError(
            f"standardize is {standardize!r}, but the engine was opened with {opened!r}"
        )


class Screened:
    """Answers of a screen, one row per pair, computed while they are read.

    A row is a `dict` with the columns of the screen's Parquet parts: ``row``, the input's own
    columns, ``status``, ``error``, ``value`` or ``label`` with the rest of the answer, and
    ``confidence``.

    Args:
        screen: Screen to read.
        executor: Executor that computes missing parts; ``None`` if the screen is complete.
        owner: Object to keep alive with this one, such as temporary files.

    Attributes:
        folder: Folder of the parts; a temporary one is deleted together with this object.
    """

    def __init__(
        self, screen: Screen, executor: PartExecutor | None, owner: object | None = None
    ) -> None:
        self._screen, self._executor = screen, executor
        self._owner = owner
        self._open_tables: Generator[pa.Table, None, None] | None = None
        self.folder = screen.folder

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._screen.plan)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield all rows: first those of written parts, then the others as parts are completed.

        Raises:
            Exception: Any error of the engine; parts completed before it are on disk.
        """
        with contextlib.closing(self._tables()) as tables:  # unlocks the folder after a `break`
            for table in tables:
                yield from table.to_pylist()

    def to_arrow(self) -> pa.Table:
        """Return all rows in processing order as one table, which has to fit into memory."""
        self._complete()
        screen = self._screen
        tables = [read_part(screen.folder, part) for part in range(screen.part_count)]
        return pa.concat_tables(tables) if tables else screen.layout.schema.empty_table()

    def finalize(self, ranking: Ranking | None = None) -> Summary:
        """Answer the remaining pairs and write ``summary.json``, ``top.csv`` and ``report.html``.

        Args:
            ranking: Ranking of the best rows; default: see `Ranking`.
        """
        ranking = ranking or Ranking()
        ranking.check(self._screen.task)
        self._complete()
        return finalize(self._screen, ranking)

    def finish(self, ranking: Ranking | None = None) -> Summary:
        """Call `finalize`; deprecated name."""
        warn_renamed("Screened.finish", "Screened.finalize")
        return self.finalize(ranking)

    def _complete(self) -> None:
        for _ in self._tables():
            pass

    def _tables(self) -> Generator[pa.Table, None, None]:
        """Read the parts, and end an earlier iteration: an engine serves one call at a time."""
        if self._open_tables is not None:
            self._open_tables.close()
        self._open_tables = self._read_tables()
        return self._open_tables

    def _read_tables(self) -> Generator[pa.Table, None, None]:
        screen = self._screen
        missing = screen.missing_parts()
        for part in sorted(set(range(screen.part_count)) - set(missing)):
            yield read_part(screen.folder, part)
        if missing:
            assert self._executor is not None
            for part in self._executor.execute(screen, missing, NullProgress(), lambda: False):
                yield read_part(screen.folder, part)
