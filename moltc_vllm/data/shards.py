"""Instructions on the disk: a folder of Parquet shards and a ``manifest.json``.

The folder appears under its name when it is whole, and not before: an interrupted build leaves
nothing, and is run again. There is no resuming, as the largest build takes minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.data.files import DataError, sha256
from moltc_vllm.data.instructions import SCHEMA, Instruction

MANIFEST = "manifest.json"
FORMAT = 1
SHARD_ROWS = 10_000
"""Records of a shard: as many as are in memory at once."""


def write_shards(
    folder: Path, stem: str, records: Iterable[Instruction], rows: int = SHARD_ROWS
) -> Iterator[dict[str, Any]]:
    """Write ``STEM-00000.parquet`` and so on, each with so many records but the last.

    Yields:
        Of each shard, when it is written: its name, rows and checksum.

    Raises:
        DataError: If it cannot be written.
    """
    waiting: list[dict[str, Any]] = []
    number = 0
    for record in records:
        waiting.append(record.as_row())
        if len(waiting) == rows:
            yield _write(folder / f"{stem}-{number:05d}.parquet", waiting)
            number, waiting = number + 1, []
    if waiting:
        yield _write(folder / f"{stem}-{number:05d}.parquet", waiting)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write what a build was made of; no times and no paths, so that two builds are the same."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of instructions.

    Raises:
        DataError: If there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(
                f"{path} is of format {manifest['format']}, not {FORMAT}: build it again"
            )
        if isinstance(manifest["shards"], list) and isinstance(manifest["options"], dict):
            return manifest
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{folder} is no folder of instructions: no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is damaged")


def read_records(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All records of a folder, shard by shard, as `SCHEMA` has them.

    Args:
        folder: Written by `moltc data build`.
        columns: Only these; all by default.

    Raises:
        DataError: If a shard is missing or damaged.
    """
    for shard in read_manifest(folder)["shards"]:
        try:
            with pa_parquet.ParquetFile(folder / shard["name"]) as file:
                for batch in file.iter_batches(columns=columns, use_threads=False):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{shard['name']} cannot be read: {error}") from error


def _write(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    try:
        pa_parquet.write_table(table, path, compression="zstd")
    except OSError as error:
        raise DataError(f"{path.name} cannot be written: {error}") from error
    return {"name": path.name, "rows": len(rows), "sha256": sha256(path)}
