"""Whole libraries: many SMILES to packed molecules, in order, by several processes."""

from __future__ import annotations

import gc
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from moltc_vllm.chem.chunk import Chunk, Row, read_chunk
from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.parse import clean_smiles

_BLOCKS_PER_WORKER = 3  # one being read, one waiting, one being handed out


def featurize_library(
    smiles: Iterable[str],
    *,
    limits: MoleculeLimits = DEFAULT_LIMITS,
    canonical: bool = True,
    workers: int | None = None,
    block: int = 256,
) -> Iterator[Row]:
    """Read a library, row by row and in order, with bounded memory.

    RDKit's parser holds the GIL, so the work is done by processes. They are started ("spawn")
    with the second block, so a script must guard its main part by ``if __name__ == "__main__"``.
    A row that cannot be read costs no other row, not even if it ends the process that reads it:
    the rows in flight are then read again one by one, in a process of their own.

    Args:
        smiles: Any number of SMILES; drawn as they are needed, three blocks per worker ahead.
        limits: How large each may be.
        canonical: Whether each row is ``canonical_key(text)`` and ``packed_of(key)``. If not, the
            key is the text as given, and the graph has the atoms in the text's order; three times
            as fast, for libraries whose SMILES are RDKit's canonical ones already.
        workers: Processes; by default one for each CPU this process may use, 0 for none.
        block: Rows that travel together. Arrays of one block share memory: copy what is kept.

    Yields:
        For each row the pair of key and packed molecule, or the `MoleculeError`.

    Raises:
        ValueError: If ``workers`` is negative or ``block`` not positive.
        RuntimeError: If worker processes cannot be started.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if workers < 0 or block < 1:
        raise ValueError(f"workers={workers} and block={block}, expected 0 or more and 1 or more")
    job = _Job(limits, canonical)
    return _rows(_blocks(smiles, block), job, workers)


class _Job(NamedTuple):
    """What to do with a block; travels to the worker."""

    limits: MoleculeLimits
    canonical: bool

    def read(self, texts: Sequence[str]) -> Chunk:
        return read_chunk(texts, self.limits, self.canonical)


def _blocks(smiles: Iterable[str], size: int) -> Iterator[list[str]]:
    rows = iter(smiles)
    while block := list(itertools.islice(rows, size)):
        yield block


def _rows(blocks: Iterator[list[str]], job: _Job, workers: int) -> Iterator[Row]:
    first = list(itertools.islice(blocks, 2))
    if workers == 0 or len(first) < 2:  # starting processes takes longer than reading a block
        for texts in itertools.chain(first, blocks):
            yield from job.read(texts).rows()
        return
    pool = _Pool(job, workers)
    try:
        for result in pool.map(itertools.chain(first, blocks)):
            yield from result
    finally:
        pool.close()


class _Pool:
    """Worker processes that survive, as a group, the death of one."""

    def __init__(self, job: _Job, workers: int) -> None:
        self._job = job
        self._workers = workers
        self._executor = _start(workers)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def map(self, blocks: Iterator[list[str]]) -> Iterator[Iterable[Row]]:
        """Rows of each block, in order."""
        ahead: deque[tuple[list[str], Future[Chunk]]] = deque()
        for texts in blocks:
            ahead.append((texts, self._submit(texts)))
            if len(ahead) == self._workers * _BLOCKS_PER_WORKER:
                yield self._finish(ahead)
        while ahead:
            yield self._finish(ahead)

    def _submit(self, texts: list[str]) -> Future[Chunk]:
        # What is no string may not travel; its row gets its error afterwards.
        texts = [text if isinstance(text, str) else "" for text in texts]
        try:
            return self._executor.submit(self._job.read, texts)
        except BrokenProcessPool as error:  # to be met again where its turn comes
            broken: Future[Chunk] = Future()
            broken.set_exception(error)
            return broken

    def _finish(self, ahead: deque[tuple[list[str], Future[Chunk]]]) -> Iterable[Row]:
        texts, future = ahead.popleft()
        try:
            rows = list(future.result().rows())
        except BrokenProcessPool:
            self.close()
            rows = self._one_by_one(texts)
            self._executor = _start(self._workers)
            later = [(other, self._submit(other)) for other, _ in ahead]
            ahead.clear()
            ahead.extend(later)
        return [
            row if isinstance(text, str) else _not_text(text)
            for text, row in zip(texts, rows, strict=True)
        ]

    def _one_by_one(self, texts: list[str]) -> list[Row]:
        """Read rows of which one may end the process."""
        rows: list[Row] = []
        self._executor = _start(1)
        for text in texts:
            try:
                rows += self._submit([text]).result().rows()
            except BrokenProcessPool:
                rows.append(MoleculeError(text, "crash", "reading it ended the process"))
                self.close()
                self._executor = _start(1)
        self.close()
        return rows


def _start(workers: int) -> ProcessPoolExecutor:
    """Start processes and see that they live: else a row would be blamed for their death."""
    executor = ProcessPoolExecutor(workers, get_context("spawn"), _prepare)
    try:
        executor.submit(_prepare).result()
    except BrokenProcessPool as error:
        executor.shutdown()
        guard = 'if __name__ == "__main__"'
        raise RuntimeError(
            f"worker processes cannot be started; is the script's main part guarded by `{guard}`?"
        ) from error
    return executor


def _prepare() -> None:
    compiled_reader()
    gc.freeze()  # what was imported, perhaps by the script, stays: do not walk through it


def _not_text(text: object) -> MoleculeError:
    try:
        clean_smiles(text, DEFAULT_LIMITS)  # type: ignore[arg-type]
    except MoleculeError as error:
        return error
    raise AssertionError("called for what is not a string")
