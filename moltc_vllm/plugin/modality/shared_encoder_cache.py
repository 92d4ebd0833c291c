"""Encoded molecules that all engines of one machine have in common.

Replicas see the same library: without this each of them encodes all of it. The molecules' tokens
are kept in one LMDB file, best in memory (``/dev/shm``); a molecule that another engine is encoding
at this moment is waited for, never longer than a moment.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moltc_vllm.plugin.modality.encoder_cache import Identity

_CLAIM = b"\x00"
_TOKENS = b"\x01"
_LEAST_MB = 1.0
_SPARE = 1 << 20


class SharedEncoderCache:
    """Molecules that any engine on this machine has encoded with the same weights.

    What is in the file is what was written there: give it a folder that only these engines may
    write to. When it is full it is emptied.

    Args:
        folder: Of the file; made if it is not there.
        capacity_mb: Size of the file.
        patience_s: How long another engine is waited for; then the molecule is encoded here.

    Raises:
        ModuleNotFoundError: If lmdb is not installed.
        OSError: If the folder cannot be used.
    """

    def __init__(self, folder: Path | str, capacity_mb: float, *, patience_s: float = 0.5) -> None:
        self.patience_s = patience_s
        self._capacity = int(max(capacity_mb, _LEAST_MB) * 1e6)
        path = Path(folder)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file, self._table, self._error = _opened(path.resolve(), self._capacity)
        self._weights = b""

    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Say what molecules are encoded with from now on: other weights have other entries."""
        found = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(weights.items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(_bytes(tensor.detach().cpu()))
        self._weights = found.digest()

    def fetch(
        self,
        molecules: Sequence[Identity],
        encode: Callable[[list[int]], Tensor],
        device: torch.device,
    ) -> Tensor:
        """Give the tokens of a batch of molecules, and encode those that nobody has.

        Args:
            molecules: Their names, each once.
            encode: Encodes the molecules at these places of the batch, ``[n, num_queries,
                hidden]``; called for those that are claimed here, and again for those that another
                engine claimed and did not deliver.
            device: Where the tokens are wanted.

        Returns:
            ``[len(molecules), num_queries, hidden]``.
        """
        keys = [self._key(one) for one in molecules]
        found, ours = self._look(keys)
        rows: dict[int, Tensor] = {}
        if ours:
            tokens = self._encode(ours, keys, encode)
            if len(ours) == len(keys):
                return tokens
            rows.update(zip(ours, tokens, strict=True))
        theirs = [place for place in range(len(keys)) if place not in found and place not in rows]
        end = time.monotonic() + self.patience_s
        while theirs and time.monotonic() < end:
            time.sleep(0.001)
            found |= self._read(keys, theirs)
            theirs = [place for place in theirs if place not in found]
        if theirs:
            rows.update(zip(theirs, self._encode(theirs, keys, encode), strict=True))
        if found:
            known = torch.stack([_unpacked(content) for content in found.values()]).to(device)
            rows.update(zip(found, known, strict=True))
        return torch.stack([rows[place] for place in range(len(keys))])

    def _encode(
        self,
        places: list[int],
        keys: Sequence[bytes],
        encode: Callable[[list[int]], Tensor],
    ) -> Tensor:
        tokens = encode(places)
        packed = [_packed(one) for one in tokens.detach().cpu()]
        with contextlib.suppress(self._error), self._writing() as transaction:
            for place, content in zip(places, packed, strict=True):
                transaction.put(keys[place], content)
        return tokens

    def _look(self, keys: Sequence[bytes]) -> tuple[dict[int, bytes], list[int]]:
        """What is there, by place; and the places of what is claimed for us hereby."""
        found = self._read(keys, range(len(keys)))
        if len(found) == len(keys):
            return found, []
        ours = []
        now = time.monotonic()  # the same clock in all processes of a machine
        try:
            with self._writing() as transaction:
                for place, key in enumerate(keys):
                    if place in found:
                        continue
                    content = transaction.get(key)
                    if content is not None and content[:1] == _TOKENS:
                        found[place] = content
                    elif content is None or now - _claimed_at(content) > self.patience_s:
                        transaction.put(key, _CLAIM + struct.pack("<d", now))
                        ours.append(place)
        except self._error:  # no room on the disk, perhaps: it is encoded here
            ours = [place for place in range(len(keys)) if place not in found]
        return found, ours

    def _read(self, keys: Sequence[bytes], places: Sequence[int]) -> dict[int, bytes]:
        contents: dict[int, bytes | None] = {}
        with contextlib.suppress(self._error), self._file.begin() as transaction:
            contents = {place: transaction.get(keys[place]) for place in places}
        return {
            place: content
            for place, content in contents.items()
            if content is not None and content[:1] == _TOKENS
        }

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        """A transaction; what is beyond the capacity is dropped first, all of it."""
        with self._file.begin(write=True) as transaction:
            held = transaction.stat(self._table)
            pages = held["branch_pages"] + held["leaf_pages"] + held["overflow_pages"]
            if pages * held["psize"] > self._capacity:
                transaction.drop(self._table, delete=False)
            yield transaction

    def _key(self, molecule: Identity) -> bytes:
        return self._weights + struct.pack(f"<{len(molecule)}q", *molecule)


@functools.cache  # LMDB: never open a file twice in one process
def _opened(folder: Path, capacity: int) -> tuple[Any, Any, type[Exception]]:
    """The file, its table, and what goes wrong with them."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a shared encoder cache needs lmdb: pip install 'moltc-vllm[ray]'"
        ) from error
    try:
        # Nothing in it has to outlive the machine: what would make it durable only costs time.
        # The spare quarter is for the list of what a drop sets free, and for the last batch.
        size = capacity + capacity // 4 + _SPARE
        file = lmdb.open(str(folder), map_size=size, sync=False, metasync=False, mode=0o600)
        file.reader_check()  # places of readers that were killed
        return file, file.open_db(), lmdb.Error
    except lmdb.Error as error:
        raise OSError(f"the shared encoder cache {folder} cannot be used: {error}") from error


def _claimed_at(content: bytes) -> float:
    return float(struct.unpack("<d", content[1:])[0])


_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _packed(tokens: Tensor) -> bytes:
    """``[num_queries, hidden]`` with its type and shape."""
    head = struct.pack("<BII", _DTYPES.index(tokens.dtype), *tokens.shape)
    return _TOKENS + head + _bytes(tokens)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _unpacked(content: bytes) -> Tensor:
    kind, first, second = struct.unpack_from("<BII", content, 1)
    start = 1 + struct.calcsize("<BII")
    # A copy: the bytes are the file's, or Python's.
    return torch.frombuffer(bytearray(content[start:]), dtype=_DTYPES[kind]).view(first, second)
