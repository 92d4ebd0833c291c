"""Files and folders that appear when they are whole, and not before."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A hidden file that gets the name ``path`` when the block ends, or vanishes if it fails.

    After the block it is on the disk, whatever happens then.
    """
    # Of this process alone: another one may be taken for dead and still write the same.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)  # its new name
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def ensure_free(folder: Path, refused: type[ValueError] = ValueError) -> None:
    """Refuse a folder that something is in.

    Args:
        folder: To be written.
        refused: What is raised if it exists and is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise refused(f"{folder} exists and is not empty; it is not written over")


@contextlib.contextmanager
def new_folder(folder: Path, refused: type[ValueError] = ValueError) -> Iterator[Path]:
    """A hidden folder that gets the name ``folder`` when the block ends, or vanishes if it fails.

    Args:
        folder: To be written.
        refused: What is raised if it is in use, or cannot be made.
    """
    try:
        ensure_free(folder, refused)
        above = [parent for parent in folder.parents if not parent.exists()]
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
    except OSError as error:
        raise refused(f"{folder}: {error.strerror}") from error
    try:
        yield partial
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            for parent in above:
                parent.rmdir()
        raise
