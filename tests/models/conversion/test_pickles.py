"""Untrusted pickle files: no code in them runs, and defects are reported in one line."""

import ast
import collections
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import moltc_vllm
from moltc_vllm.models.conversion.pickles import PickleError, read_pickle, read_state_dict


class Touch:
    """Object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def rejection(path):
    with pytest.raises(PickleError) as caught:
        read_pickle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 0", "pickle 2", "pickle 4"])
def test_read_pickle_names_code_without_running_it(tmp_path, kind):
    path, marker = tmp_path / "stage2.ckpt", tmp_path / "code-ran"
    content = {"state_dict": {"blip2opt.query_tokens": torch.zeros(1)}, "callbacks": Touch(marker)}
    if kind.startswith("pickle"):
        with path.open("wb") as file:
            pickle.dump({"callbacks": content["callbacks"]}, file, protocol=int(kind[-1]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    assert rejection(path) == "would run 'posix.system' when loaded; refused"
    assert not marker.exists()
    # Loading the file without protection does run the code.
    with path.open("rb") as file:
        torch.load(path, weights_only=False) if kind in ("zip", "legacy") else pickle.load(file)
    assert marker.exists()


@pytest.mark.parametrize(("value", "name"), [(eval, "builtins.eval"), (Touch, "Touch")])
def test_read_pickle_names_referenced_class_or_function(tmp_path, value, name):
    torch.save({"a": value}, tmp_path / "x.ckpt")
    assert f"{name}' when loaded; refused" in rejection(tmp_path / "x.ckpt")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_pickle_resolves_memoized_names(tmp_path, protocol):
    """A pickle may refer to a module's name instead of repeating it."""
    content = [torch.Size, collections.OrderedDict, collections.Counter]
    with (tmp_path / "x.ckpt").open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    assert "'collections.Counter'" in rejection(tmp_path / "x.ckpt")


@pytest.mark.parametrize("zipped", [True, False])
def test_read_pickle_reports_truncated_file(tmp_path, zipped):
    whole, path = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    content = {"state_dict": {"a": torch.arange(500.0), "b": torch.arange(7)}, "epoch": 1}
    torch.save(content, whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    assert read_pickle(whole)["epoch"] == 1
    for length in (1, 2, 3, 10, 60, 150, 400, len(data) // 2, len(data) - 300, len(data) - 1):
        path.write_bytes(data[:length])
        assert rejection(path) == "is truncated or damaged", length


def test_read_pickle_reports_missing_archive_member(tmp_path):
    torch.save({"a": torch.zeros(3), "b": torch.ones(3)}, tmp_path / "whole.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "whole.ckpt") as whole,
        zipfile.ZipFile(tmp_path / "cut.ckpt", "w") as cut,
    ):
        for name in whole.namelist():
            if not name.endswith("data/1"):
                cut.writestr(name, whole.read(name))
    assert rejection(tmp_path / "cut.ckpt") == "is truncated or damaged"


def test_read_pickle_reports_other_formats(tmp_path):
    path = tmp_path / "x.ckpt"
    assert rejection(path) == "does not exist"
    path.write_bytes(b"")
    assert rejection(path) == "is empty"
    for text in ("<!DOCTYPE html><html>", "{}", "epoch: 1\n", "\0" * 100):
        path.write_text(text)
        assert rejection(path) == "is not a file written by torch.save"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert rejection(path) == "is a Git LFS pointer, not the file it points to"
    save_file({"a": torch.zeros(3)}, path)
    assert rejection(path) == "is a safetensors file, expected one written by torch.save"
    with path.open("wb") as file:
        pickle.dump({"epoch": 1}, file, protocol=2)
    assert rejection(path) == "is not a file written by torch.save"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert rejection(path) == "is not a file written by torch.save"
    assert rejection(tmp_path) == "is a folder, expected a file written by torch.save"


def test_read_state_dict_memory_maps_zip_files(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "x.pt")
    torch.save({"a": torch.ones(1000)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    maps = Path("/proc/self/maps")
    mapped = read_state_dict(tmp_path / "x.pt")
    assert str(tmp_path / "x.pt") in maps.read_text()
    old = read_state_dict(tmp_path / "old.pt")
    assert torch.equal(mapped["a"], old["a"])
    mapped["a"][0] = 5  # the mapping is copy-on-write
    assert read_state_dict(tmp_path / "x.pt")["a"][0] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "not a state dict but a Tensor"),
        ({}, "not a state dict but a dict"),
        ({"a": torch.zeros(3), "epoch": 3}, "'epoch' is a int, not a tensor"),
        ({1: torch.zeros(3)}, "1 is a Tensor"),
    ],
)
def test_read_state_dict_rejects_other_content(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(PickleError, match=message):
        read_state_dict(tmp_path / "x.pt")


def test_package_loads_pickles_safely_only():
    load_calls = 0
    for path in Path(moltc_vllm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = f"{ast.unparse(node.func)}"
                assert call not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), path
                if call == "torch.load":
                    load_calls += 1
                    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert options.get("weights_only") == "True", path
    assert load_calls
