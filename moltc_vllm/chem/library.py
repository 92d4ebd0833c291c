"""Featurize whole libraries: SMILES to packed molecules, in order, in several processes."""

from __future__ import annotations

import functools
import gc
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from moltc_vllm.chem.chunk import Chunk, LibraryRow, read_chunk
from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.parse import clean_smiles
from moltc_vllm.utils.cpus import available_cpus
from moltc_vllm.utils.deprecation import warn_renamed
from moltc_vllm.utils.standardization import Standardization

_CHUNKS_PER_WORKER = 3  # One is being read, one is queued, one is being yielded.

_ChunkReader = Callable[[Sequence[str]], Chunk]


def featurize_library(
    smiles: Iterable[str],
    *,
    limits: MoleculeLimits = DEFAULT_LIMITS,
    canonical: bool = True,
    workers: int | None = None,
    chunk_size: int = 256,
    descriptors: bool = False,
    standardization: Standardization = "as-drawn",
    block: int | None = None,
) -> Iterator[LibraryRow]:
    """Featurize a library row by row, in order and with bounded memory.

    RDKit's parser holds the GIL, so worker processes read the molecules. They are spawned once a
    second chunk is needed, so a script must guard its main part with
    ``if __name__ == "__main__"``. An invalid row affects no other row, even if it crashes the
    process that reads it: the rows of that chunk are then read again one by one in a separate
    process.

    Args:
        smiles: SMILES of the library; consumed lazily, at most three chunks per worker ahead.
        limits: Bounds on each molecule's size.
        canonical: Whether each row is ``canonical_key(text)`` and ``packed_of(key)``. Otherwise
            the key is the stripped text and the graph has the text's atom order, which is three
            times as fast and suits libraries whose SMILES are already canonical.
        workers: Number of worker processes; 0 reads in this process. Default: one per CPU that
            this process may use.
        chunk_size: Number of rows that a worker reads at a time. The arrays of a chunk share
            memory, so copy the arrays of a row to keep them without the rest of the chunk.
        descriptors: Whether to add each molecule's vector of descriptors, for models that use them.
        standardization: How each molecule is standardized first, see `moltc_vllm.chem.standardize`;
            needs ``canonical``.
        block: Deprecated name of ``chunk_size``.

    Yields:
        Key and packed molecule of each row, or its `MoleculeError`.

    Raises:
        ValueError: If ``workers`` is negative, ``chunk_size`` is not positive, or molecules are
            standardized but not canonicalized.
        RuntimeError: If worker processes cannot be started.
    """
    if block is not None:
        warn_renamed("argument 'block' of featurize_library", "'chunk_size'")
        chunk_size = block
    if workers is None:
        workers = available_cpus()
    if workers < 0 or chunk_size < 1:
        raise ValueError(
            f"workers={workers} and chunk_size={chunk_size}, expected 0 or more and 1 or more"
        )
    if standardization != "as-drawn" and not canonical:
        raise ValueError(f"standardization={standardization!r} needs canonical=True")
    read = functools.partial(
        read_chunk,
        limits=limits,
        canonical=canonical,
        descriptors=descriptors,
        standardization=standardization,
    )
    return _read_rows(_split(smiles, chunk_size), read, workers)


def _split(smiles: Iterable[str], size: int) -> Iterator[list[str]]:
    rows = iter(smiles)
    while texts := list(itertools.islice(rows, size)):
        yield texts


def _read_rows(
    chunks: Iterator[list[str]], read: _ChunkReader, workers: int
) -> Iterator[LibraryRow]:
    first = list(itertools.islice(chunks, 2))
    if workers == 0 or len(first) < 2:  # Starting processes takes longer than reading a chunk.
        for texts in itertools.chain(first, chunks):
            yield from read(texts).rows()
        return
    pool = _CrashTolerantPool(read, workers)
    try:
        for rows in pool.map(itertools.chain(first, chunks)):
            yield from rows
    finally:
        pool.close()


class _CrashTolerantPool:
    """Pool of worker processes that is replaced when one of them dies."""

    def __init__(self, read: _ChunkReader, workers: int) -> None:
        self._read = read
        self._workers = workers
        self._executor = _start_executor(workers)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def map(self, chunks: Iterator[list[str]]) -> Iterator[Iterable[LibraryRow]]:
        """Yield the rows of each chunk, in order."""
        pending: deque[tuple[list[str], Future[Chunk]]] = deque()
        for texts in chunks:
            pending.append((texts, self._submit(texts)))
            if len(pending) == self._workers * _CHUNKS_PER_WORKER:
                yield self._collect_oldest(pending)
        while pending:
            yield self._collect_oldest(pending)

    def _submit(self, texts: list[str]) -> Future[Chunk]:
        # Other objects may not be picklable; `_collect_oldest` puts their error into the row.
        texts = [text if isinstance(text, str) else "" for text in texts]
        try:
            return self._executor.submit(self._read, texts)
        except BrokenProcessPool as error:
            # `_collect_oldest` handles the error when this chunk is the oldest.
            broken: Future[Chunk] = Future()
            broken.set_exception(error)
            return broken

    def _collect_oldest(
        self, pending: deque[tuple[list[str], Future[Chunk]]]
    ) -> Iterable[LibraryRow]:
        """Wait for the oldest chunk; if a worker died, replace the pool and resubmit the rest."""
        texts, future = pending.popleft()
        try:
            rows = list(future.result().rows())
        except BrokenProcessPool:
            self.close()
            rows = self._read_one_by_one(texts)
            self._executor = _start_executor(self._workers)
            resubmitted = [(other, self._submit(other)) for other, _ in pending]
            pending.clear()
            pending.extend(resubmitted)
        return [
            row if isinstance(text, str) else _type_error(text)
            for text, row in zip(texts, rows, strict=True)
        ]

    def _read_one_by_one(self, texts: list[str]) -> list[LibraryRow]:
        """Read rows one by one, to identify the rows that crash their process."""
        rows: list[LibraryRow] = []
        self._executor = _start_executor(1)
        for text in texts:
            try:
                rows += self._submit([text]).result().rows()
            except BrokenProcessPool:
                rows.append(MoleculeError(text, "crash", "the process that read it crashed"))
                self.close()
                self._executor = _start_executor(1)
        self.close()
        return rows


def _start_executor(workers: int) -> ProcessPoolExecutor:
    """Start worker processes and wait until one runs.

    Without the wait, a failure to start would look like a crash caused by a row.

    Raises:
        RuntimeError: If worker processes cannot be started.
    """
    executor = ProcessPoolExecutor(workers, get_context("spawn"), _initialize_worker)
    try:
        executor.submit(_initialize_worker).result()
    except BrokenProcessPool as error:
        executor.shutdown()
        raise RuntimeError(
            "worker processes cannot be started; guard the script's main part with "
            '`if __name__ == "__main__"`, or use workers=0'
        ) from error
    return executor


def _initialize_worker() -> None:
    compiled_reader()
    gc.freeze()  # Imported modules never become garbage, so the collector need not traverse them.


def _type_error(value: object) -> MoleculeError:
    """Build the error that `clean_smiles` raises for an object that is not a string."""
    try:
        clean_smiles(value, DEFAULT_LIMITS)  # type: ignore[arg-type]
    except MoleculeError as error:
        return error
    raise AssertionError(f"{value!r} is a string")
