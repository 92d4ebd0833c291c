"""Files and folders that appear under their names only when they are complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def sha256(path: Path) -> str:
    """Compute the SHA-256 checksum of a file, in hexadecimal.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: rename a temporary file to ``path`` when the block ends.

    The content and the name are fsynced. If the block raises, the temporary file is removed and an
    existing file at ``path`` is kept.

    Args:
        path: Path of the complete file.

    Yields:
        Path of the temporary file to write, hidden in the same folder.
    """
    # The name has the process id, because a process that is believed to be dead may still write.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _fsync(partial)
        partial.replace(path)
        _fsync(path.parent)  # makes the new name durable
    finally:
        partial.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_free(folder: Path, error_type: type[ValueError] = ValueError) -> None:
    """Raise an error if a path exists and is not an empty folder.

    Args:
        folder: Folder that will be written.
        error_type: Type of the error to raise.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise error_type(f"{folder} exists and is not empty; it is not written over")


@contextlib.contextmanager
def new_folder(folder: Path, error_type: type[ValueError] = ValueError) -> Iterator[Path]:
    """Write a folder atomically: rename a temporary folder when the block ends.

    If the block raises, the temporary folder is removed, and so are the parent folders that were
    created for it.

    Args:
        folder: Path of the complete folder.
        error_type: Type of the error to raise if the folder is not empty or cannot be created.

    Yields:
        Path of the temporary folder to fill, hidden beside ``folder``.
    """
    try:
        ensure_free(folder, error_type)
        missing_parents = [parent for parent in folder.parents if not parent.exists()]
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
        partial.mkdir(parents=True)
    except OSError as error:
        raise error_type(f"{folder}: {error.strerror}") from error
    try:
        yield partial
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            for parent in missing_parents:
                parent.rmdir()
        raise
