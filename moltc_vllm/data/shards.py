"""Instruction data on disk: a folder of Parquet shards and a ``manifest.json``.

The folder appears under its name only when it is complete, so an interrupted build leaves nothing.
A build cannot be resumed, as the largest one takes minutes.
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
from moltc_vllm.utils.errors import one_line
from moltc_vllm.utils.json_objects import read_json_object

MANIFEST = "manifest.json"
FORMAT = 1
SHARD_ROWS = 10_000
"""Default number of records per shard, which are in memory at once."""


def write_shards(
    folder: Path, stem: str, records: Iterable[Instruction], rows: int = SHARD_ROWS
) -> Iterator[dict[str, Any]]:
    """Write records to ``STEM-00000.parquet``, ``STEM-00001.parquet`` and so on.

    Args:
        folder: Folder to write to.
        stem: Beginning of the file names.
        records: Records to write.
        rows: Number of records per shard; the last one may have fewer.

    Yields:
        Name, number of rows and checksum of each shard, after it was written.

    Raises:
        DataError: If a shard cannot be written.
    """
    pending: list[dict[str, Any]] = []
    index = 0
    for record in records:
        pending.append(record.as_row())
        if len(pending) == rows:
            yield _write(folder / f"{stem}-{index:05d}.parquet", pending)
            index, pending = index + 1, []
    if pending:
        yield _write(folder / f"{stem}-{index:05d}.parquet", pending)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a build.

    It contains no times and no paths, so that equal builds have equal manifests.

    Args:
        folder: Folder of the shards.
        manifest: Content of the manifest.
    """
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a build.

    Args:
        folder: Folder that `moltc data build` wrote.

    Raises:
        DataError: If there is no manifest, or it is damaged or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} is not a folder of instructions: it has no {MANIFEST}")
    try:
        manifest = read_json_object(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {manifest.get('format')}, not {FORMAT}; build the folder again"
        )
    if not (isinstance(manifest.get("shards"), list) and isinstance(manifest.get("options"), dict)):
        raise DataError(f"{path} is damaged; build the folder again")
    return manifest


def read_records(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read all records of a build, shard by shard, with the columns of `SCHEMA`.

    Args:
        folder: Folder that `moltc data build` wrote.
        columns: Names of the columns to read; default: all.

    Raises:
        DataError: If the manifest or a shard is missing or damaged.
    """
    for shard in read_manifest(folder)["shards"]:
        try:
            with pa_parquet.ParquetFile(folder / shard["name"]) as file:
                for batch in file.iter_batches(columns=columns, use_threads=False):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{shard['name']} cannot be read: {one_line(error)}") from error


def _write(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    try:
        pa_parquet.write_table(table, path, compression="zstd")
    except OSError as error:
        raise DataError(f"{path.name} cannot be written: {one_line(error)}") from error
    return {"name": path.name, "rows": len(rows), "sha256": sha256(path)}
