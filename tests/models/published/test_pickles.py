"""Files from strangers: nothing in them is run, and what is wrong with them is one line."""

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
from moltc_vllm.models.conversion.pickles import PickleError, read_pickle, read_tensors


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def reason(path):
    with pytest.raises(PickleError) as caught:
        read_pickle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 0", "pickle 2", "pickle 4"])
def test_code_in_a_file_is_named_and_not_run(tmp_path, kind):
    path, sign = tmp_path / "stage2.ckpt", tmp_path / "it-ran"
    content = {"state_dict": {"blip2opt.query_tokens": torch.zeros(1)}, "callbacks": Touch(sign)}
    if kind.startswith("pickle"):
        with path.open("wb") as file:
            pickle.dump({"callbacks": content["callbacks"]}, file, protocol=int(kind[-1]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    assert reason(path) == "wants to run 'posix.system' when loaded; refused"
    assert not sign.exists()
    # The file is what it is said to be: loaded by a trusting reader, it runs.
    with path.open("rb") as file:
        torch.load(path, weights_only=False) if kind in ("zip", "legacy") else pickle.load(file)
    assert sign.exists()


@pytest.mark.parametrize(("value", "name"), [(eval, "builtins.eval"), (Touch, "Touch")])
def test_a_class_or_function_alone_is_named_too(tmp_path, value, name):
    torch.save({"a": value}, tmp_path / "x.ckpt")
    assert f"{name}' when loaded; refused" in reason(tmp_path / "x.ckpt")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_names_are_found_behind_references(tmp_path, protocol):
    """The second class of a module may be pickled as a reference to the module's name."""
    content = [torch.Size, collections.OrderedDict, collections.Counter]
    with (tmp_path / "x.ckpt").open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    assert "'collections.Counter'" in reason(tmp_path / "x.ckpt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_off_anywhere_is_called_truncated(tmp_path, zipped):
    whole, path = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    content = {"state_dict": {"a": torch.arange(500.0), "b": torch.arange(7)}, "epoch": 1}
    torch.save(content, whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    assert read_pickle(whole)["epoch"] == 1
    for length in (1, 2, 3, 10, 60, 150, 400, len(data) // 2, len(data) - 300, len(data) - 1):
        path.write_bytes(data[:length])
        assert reason(path) == "is truncated or damaged", length


def test_a_weight_missing_from_the_archive_is_damage(tmp_path):
    torch.save({"a": torch.zeros(3), "b": torch.ones(3)}, tmp_path / "whole.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "whole.ckpt") as whole,
        zipfile.ZipFile(tmp_path / "cut.ckpt", "w") as cut,
    ):
        for name in whole.namelist():
            if not name.endswith("data/1"):
                cut.writestr(name, whole.read(name))
    assert reason(tmp_path / "cut.ckpt") == "is truncated or damaged"


def test_other_files_are_named(tmp_path):
    path = tmp_path / "x.ckpt"
    assert reason(path) == "does not exist"
    path.write_bytes(b"")
    assert reason(path) == "is empty"
    for text in ("<!DOCTYPE html><html>", "{}", "epoch: 1\n", "\0" * 100):
        path.write_text(text)
        assert reason(path) == "is not a file written by torch.save"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert reason(path) == "is a Git LFS pointer, not the file it points to"
    save_file({"a": torch.zeros(3)}, path)
    assert reason(path) == "is a safetensors file, expected one written by torch.save"
    with path.open("wb") as file:
        pickle.dump({"epoch": 1}, file, protocol=2)
    assert reason(path) == "is not a file written by torch.save"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert reason(path) == "is not a file written by torch.save"
    assert reason(tmp_path) == "is a folder, expected a file written by torch.save"


def test_weights_stay_on_disk_until_they_are_used(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "x.pt")
    torch.save({"a": torch.ones(1000)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    maps = Path("/proc/self/maps")
    mapped = read_tensors(tmp_path / "x.pt")
    assert str(tmp_path / "x.pt") in maps.read_text()
    old = read_tensors(tmp_path / "old.pt")
    assert torch.equal(mapped["a"], old["a"])
    mapped["a"][0] = 5  # private: not the file
    assert read_tensors(tmp_path / "x.pt")["a"][0] == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (torch.zeros(3), "not a state dict but a Tensor"),
        ({}, "not a state dict but a dict"),
        ({"a": torch.zeros(3), "epoch": 3}, "'epoch' is a int, not a tensor"),
        ({1: torch.zeros(3)}, "1 is a Tensor"),
    ],
)
def test_a_state_dict_is_tensors_by_name(tmp_path, content, what):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(PickleError, match=what):
        read_tensors(tmp_path / "x.pt")


def test_nothing_in_the_package_unpickles_freely():
    found = 0
    for path in Path(moltc_vllm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = f"{ast.unparse(node.func)}"
                assert call not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), path
                if call == "torch.load":
                    found += 1
                    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert options.get("weights_only") == "True", path
    assert found
