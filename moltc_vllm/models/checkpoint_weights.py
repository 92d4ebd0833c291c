"""Weight files of a checkpoint folder: ``model*.safetensors`` and their index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.utils.errors import one_line

INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5 * 2**30


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Stream the names and tensors of all ``model*.safetensors`` files.

    Args:
        folder: Checkpoint folder.

    Raises:
        CheckpointError: If there are no weight files, or one that the index names is missing or
            cannot be read.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("model*.safetensors"))
    if not names:
        raise CheckpointError(f"{folder} has no model*.safetensors")
    for name in names:
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder}: {name} is missing")
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    yield key, file.get_tensor(key)
        except Exception as error:  # safetensors raises one class for all defects
            raise CheckpointError(f"{path} cannot be read: {one_line(error)}") from error


def write_weights(
    folder: Path, weights: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write ``model*.safetensors``, and an index if there are several files.

    Args:
        folder: Existing folder.
        weights: Names and tensors; a stream is held in memory one file at a time.
        shard_bytes: Maximum size of a file in bytes; a larger tensor gets a file of its own.

    Raises:
        CheckpointError: If a file cannot be written, for example because the disk is full.
    """
    writer = _ShardWriter(folder, shard_bytes)
    for key, tensor in weights:
        writer.add(key, tensor)
    writer.finish()


class _ShardWriter:
    """Writer of weight files of limited size."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._shard: dict[str, Tensor] = {}
        self._shard_size = 0
        self._storages: set[int] = set()  # memory addresses of the shard's tensors
        self._total_size = 0
        self._shard_of_key: dict[str, int] = {}
        self._paths: list[Path] = []

    def add(self, key: str, tensor: Tensor) -> None:
        size = tensor.nbytes
        if self._shard and self._shard_size + size > self._shard_bytes:
            self._flush()
        if tensor.untyped_storage().data_ptr() in self._storages:
            tensor = tensor.clone()  # safetensors refuses tensors that share memory
        self._storages.add(tensor.untyped_storage().data_ptr())
        self._shard[key] = tensor
        self._shard_size += size
        self._total_size += size
        self._shard_of_key[key] = len(self._paths)

    def finish(self) -> None:
        """Write the last shard and give all files their final names."""
        self._flush()
        count = len(self._paths)
        if count == 1:
            self._paths[0].rename(self._folder / "model.safetensors")
            return
        names = [f"model-{index + 1:05}-of-{count:05}.safetensors" for index in range(count)]
        for path, name in zip(self._paths, names, strict=True):
            path.rename(self._folder / name)
        index = {
            "metadata": {"total_size": self._total_size},
            "weight_map": {key: names[shard] for key, shard in self._shard_of_key.items()},
        }
        (self._folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")

    def _flush(self) -> None:
        path = self._folder / f"part-{len(self._paths)}.safetensors"
        try:
            # safetensors creates files that only their owner may read; restore the umask's mode.
            path.touch()
            mode = path.stat().st_mode
            save_file(self._shard, path, metadata={"format": "pt"})
            path.chmod(mode)
        except SafetensorError as error:
            raise CheckpointError(
                f"{self._folder}: weights cannot be written: {one_line(error)}"
            ) from error
        self._paths.append(path)
        self._shard, self._shard_size, self._storages = {}, 0, set()
