"""Atomic files and folders."""

import hashlib

import pytest

from moltc_vllm.utils.atomic_files import ensure_free, new_file, new_folder, sha256


class FolderError(ValueError):
    pass


def interrupt_after_writing(context):
    """Write to a new file or folder, and raise `KeyboardInterrupt` before it is complete."""
    with context as partial:
        path = partial / "a" if partial.is_dir() else partial
        path.write_text("new")
        raise KeyboardInterrupt


def test_sha256_is_the_checksum_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


def test_new_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with new_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_keeps_the_old_file_if_the_block_raises(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupt_after_writing(new_file(path))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folder_appears_when_the_block_ends(tmp_path):
    folder = tmp_path / "parent" / "out"
    with new_folder(folder) as partial:
        (partial / "a").write_text("new")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert list(folder.parent.iterdir()) == [folder]


def test_new_folder_removes_everything_if_the_block_raises(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupt_after_writing(new_folder(tmp_path / "parent" / "out"))
    assert list(tmp_path.iterdir()) == []


def test_ensure_free_refuses_files_and_folders_with_content(tmp_path):
    ensure_free(tmp_path)
    ensure_free(tmp_path / "missing")
    (tmp_path / "a").write_text("content")
    for path in (tmp_path, tmp_path / "a"):
        with pytest.raises(FolderError, match="exists and is not empty"):
            ensure_free(path, FolderError)
