"""Cache of encoded molecules that is shared by all engines of one machine.

Replicas answer pairs of the same library, so without this cache each replica would encode the whole
library. The molecules' tokens are in one LMDB file, preferably in memory (``/dev/shm``). An engine
claims the molecules that it is about to encode; other engines wait for them, but only for a limited
time.
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

from moltc_vllm.plugin.modality.encoder_cache import MoleculeId

# First byte of an entry.
_CLAIM = b"\x00"
_TOKENS = b"\x01"

_CLAIM_TIME = struct.Struct("<d")  # of `time.monotonic`
_TOKENS_HEADER = struct.Struct("<BII")  # index in `_DTYPES`, num_queries, hidden
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_MIN_CAPACITY_MB = 1.0
_SPARE_BYTES = 1 << 20
_POLL_INTERVAL_S = 0.001


class SharedEncoderCache:
    """Cache of the molecules that any engine on this machine has encoded with the same weights.

    The content of the file is trusted, so only these engines may have write access to its folder.
    When the file is full, all entries are dropped.

    Args:
        folder: Folder of the file; created if it does not exist.
        capacity_mb: Capacity in MB.
        claim_timeout_s: Maximum time to wait for a molecule that another engine has claimed, in
            seconds; after that, this engine encodes the molecule itself.

    Raises:
        ModuleNotFoundError: If lmdb is not installed.
        OSError: If the folder cannot be used.
    """

    def __init__(
        self, folder: Path | str, capacity_mb: float, *, claim_timeout_s: float = 0.5
    ) -> None:
        self.claim_timeout_s = claim_timeout_s
        self._capacity = int(max(capacity_mb, _MIN_CAPACITY_MB) * 1e6)
        path = Path(folder)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._environment, self._database, self._error = _open_lmdb(path.resolve(), self._capacity)
        self._weights_digest = b""

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the encoder's weights, whose digest is part of every key.

        Args:
            weights: State dictionary of the encoder.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(weights.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_tensor_bytes(tensor.detach().cpu()))
        self._weights_digest = digest.digest()

    def get_or_encode(
        self,
        molecules: Sequence[MoleculeId],
        encode: Callable[[list[int]], Tensor],
        device: torch.device,
    ) -> Tensor:
        """Return the tokens of a batch of molecules, and encode those that no engine has encoded.

        Args:
            molecules: Ids of the batch's molecules, without repetitions.
            encode: Function that encodes the molecules at the given indices of the batch to
                ``[n, num_queries, hidden]``. It is called for the molecules that this engine
                claims, and again for those that another engine claimed but did not encode in time.
            device: Device of the result.

        Returns:
            ``[len(molecules), num_queries, hidden]``.
        """
        keys = [self._key(molecule) for molecule in molecules]
        cached, claimed = self._read_or_claim(keys)
        rows: dict[int, Tensor] = {}
        if claimed:
            tokens = self._encode_and_store(claimed, keys, encode)
            if len(claimed) == len(keys):
                return tokens
            rows.update(zip(claimed, tokens, strict=True))
        pending = [index for index in range(len(keys)) if index not in cached and index not in rows]
        pending = self._wait_for_others(pending, keys, cached)
        if pending:
            tokens = self._encode_and_store(pending, keys, encode)
            rows.update(zip(pending, tokens, strict=True))
        if cached:
            tokens = torch.stack([_unpack_tokens(entry) for entry in cached.values()]).to(device)
            rows.update(zip(cached, tokens, strict=True))
        return torch.stack([rows[index] for index in range(len(keys))])

    def _read_or_claim(self, keys: Sequence[bytes]) -> tuple[dict[int, bytes], list[int]]:
        """Return cached entries by index, and the indices this process has claimed to encode."""
        cached = self._read(keys, range(len(keys)))
        if len(cached) == len(keys):
            return cached, []
        claimed = []
        now = time.monotonic()  # all processes of a machine share this clock
        try:
            with self._write_transaction() as transaction:
                for index, key in enumerate(keys):
                    if index in cached:
                        continue
                    entry = transaction.get(key)
                    if entry is not None and entry[:1] == _TOKENS:
                        cached[index] = entry
                    elif entry is None or now - _claimed_at(entry) > self.claim_timeout_s:
                        transaction.put(key, _CLAIM + _CLAIM_TIME.pack(now))
                        claimed.append(index)
        except self._error:  # e.g. a full disk; the molecules are encoded without the cache
            claimed = [index for index in range(len(keys)) if index not in cached]
        return cached, claimed

    def _wait_for_others(
        self, pending: list[int], keys: Sequence[bytes], cached: dict[int, bytes]
    ) -> list[int]:
        """Wait for molecules that other engines have claimed, and add them to ``cached``.

        Returns:
            Indices of the molecules that are still missing after the timeout.
        """
        deadline = time.monotonic() + self.claim_timeout_s
        while pending and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL_S)
            cached |= self._read(keys, pending)
            pending = [index for index in pending if index not in cached]
        return pending

    def _encode_and_store(
        self,
        indices: list[int],
        keys: Sequence[bytes],
        encode: Callable[[list[int]], Tensor],
    ) -> Tensor:
        tokens = encode(indices)
        entries = [_pack_tokens(row) for row in tokens.detach().cpu()]
        with contextlib.suppress(self._error), self._write_transaction() as transaction:
            for index, entry in zip(indices, entries, strict=True):
                transaction.put(keys[index], entry)
        return tokens

    def _read(self, keys: Sequence[bytes], indices: Sequence[int]) -> dict[int, bytes]:
        """Return the entries with tokens by index."""
        entries: dict[int, bytes | None] = {}
        with contextlib.suppress(self._error), self._environment.begin() as transaction:
            entries = {index: transaction.get(keys[index]) for index in indices}
        return {
            index: entry
            for index, entry in entries.items()
            if entry is not None and entry[:1] == _TOKENS
        }

    @contextlib.contextmanager
    def _write_transaction(self) -> Iterator[Any]:
        """Begin a write transaction; if the capacity is exceeded, drop all entries first."""
        with self._environment.begin(write=True) as transaction:
            usage = transaction.stat(self._database)
            pages = usage["branch_pages"] + usage["leaf_pages"] + usage["overflow_pages"]
            if pages * usage["psize"] > self._capacity:
                transaction.drop(self._database, delete=False)
            yield transaction

    def _key(self, molecule: MoleculeId) -> bytes:
        return self._weights_digest + struct.pack(f"<{len(molecule)}q", *molecule)


@functools.cache  # LMDB forbids opening a file twice in one process
def _open_lmdb(folder: Path, capacity: int) -> tuple[Any, Any, type[Exception]]:
    """Open the environment and its database; return them with LMDB's error class."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a shared encoder cache needs lmdb: pip install 'moltc-vllm[ray]'"
        ) from error
    try:
        # Syncing is off, because the entries need not survive a crash of the machine. The spare
        # quarter holds the list of pages that a drop frees, and the last batch.
        size = capacity + capacity // 4 + _SPARE_BYTES
        environment = lmdb.open(str(folder), map_size=size, sync=False, metasync=False, mode=0o600)
        environment.reader_check()  # frees the reader slots of killed processes
        return environment, environment.open_db(), lmdb.Error
    except lmdb.Error as error:
        raise OSError(f"the shared encoder cache {folder} cannot be used: {error}") from error


def _claimed_at(entry: bytes) -> float:
    return float(_CLAIM_TIME.unpack(entry[1:])[0])


def _pack_tokens(tokens: Tensor) -> bytes:
    """Serialize ``[num_queries, hidden]`` with dtype and shape."""
    header = _TOKENS_HEADER.pack(_DTYPES.index(tokens.dtype), *tokens.shape)
    return _TOKENS + header + _tensor_bytes(tokens)


def _unpack_tokens(entry: bytes) -> Tensor:
    dtype_index, num_queries, hidden = _TOKENS_HEADER.unpack_from(entry, 1)
    start = 1 + _TOKENS_HEADER.size
    # The bytes are copied, because a tensor needs writable memory.
    data = bytearray(entry[start:])
    return torch.frombuffer(data, dtype=_DTYPES[dtype_index]).view(num_queries, hidden)


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
