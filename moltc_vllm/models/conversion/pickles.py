"""Reading ``torch.save`` files from strangers: weights only, and a cause in one line if not.

A pickle is a program. Nothing here ever runs one: `torch.load` gets ``weights_only=True``, and
what a refused file wanted is read off its opcodes.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from moltc_vllm.models.weights import WeightsError

_ZIP, _PICKLE, _GIT_LFS = b"PK\x03\x04", b"\x80", b"version https://git-lfs"
_HARMLESS = ("torch.", "collections.OrderedDict")
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class PickleError(WeightsError):
    """A file that is not what ``torch.save`` writes, is damaged, or wants to run code."""


def read_pickle(path: Path) -> Any:
    """Load a file that ``torch.save`` wrote: tensors in plain containers, on the CPU.

    The tensors of a file in the zip format stay on disk until they are used.

    Raises:
        PickleError: If there is no such file, or it cannot be loaded so; one line that says why.
    """
    _refuse_other_kinds(path)
    try:
        # Only the zip format can be mapped; older files are read whole.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the unpickler meets damage with a dozen classes of error
        raise PickleError(f"{path} {_cause(path, str(error))}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Load a file that is a plain state dict.

    Raises:
        PickleError: If it cannot be loaded, or is something else.
    """
    state = read_pickle(path)
    if not isinstance(state, dict) or not state:
        raise PickleError(f"{path} is not a state dict but a {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise PickleError(
                f"{path} is not a state dict: {key!r} is a {type(value).__name__}, not a tensor"
            )
    return dict(state)


def _refuse_other_kinds(path: Path) -> None:
    """Name the mix-ups that have a name of their own."""
    if path.is_dir():
        raise PickleError(f"{path} is a folder, expected a file written by torch.save")
    if not path.is_file():
        raise PickleError(f"{path} does not exist")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise PickleError(f"{path} is empty")
    if start.startswith(_GIT_LFS):
        raise PickleError(f"{path} is a Git LFS pointer, not the file it points to")
    # Their header's length, then JSON. `torch.load` would read it, but it is not what was asked.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        raise PickleError(f"{path} is a safetensors file, expected one written by torch.save")


def _cause(path: Path, message: str) -> str:
    """Why a file was not loaded, to stand behind its name."""
    damaged, foreign = "is truncated or damaged", "is not a file written by torch.save"
    try:
        wanted = list(_globals_of(path))
    except Exception:  # cut off, or no pickle at all
        with path.open("rb") as file:
            start = file.read(4)
        if zipfile.is_zipfile(path):  # whole, but of something else
            return foreign
        return damaged if start[:1] == _PICKLE or _ZIP.startswith(start) else foreign
    named = _REFUSED_GLOBAL.search(message)
    if named:
        refused = named[1].rstrip(".")
        wanted.insert(0, next((name for name in wanted if name.endswith(refused)), refused))
    for name in wanted:
        if not name.startswith(_HARMLESS):
            return f"wants to run {name!r} when loaded; refused"
    return damaged if zipfile.is_zipfile(path) or "unexpected EOF" in message else foreign


def _globals_of(path: Path) -> Iterator[str]:
    """Functions and classes that the pickles of a file name, read without running them.

    Raises:
        Exception: Of some kind, if there is no complete pickle.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"])
            with archive.open(name) as stream:
                yield from _globals_in(stream)
        return
    with path.open("rb") as stream:
        # The old format: magic number, version, machine, then the object.
        yield from _globals_in(stream)
        for _ in range(3):
            if not stream.peek(1):
                return
            yield from _globals_in(stream)


def _globals_in(stream: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None  # what is on top of the stack, if it is a text
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "MEMOIZE" or name.endswith("PUT"):
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = last
            continue
        if name == "GLOBAL":
            yield _joined(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL" and len(strings) > 1:
            yield _joined(*strings[-2:])
        elif name.endswith("GET"):
            argument = memo.get(int(argument))
        last = argument if isinstance(argument, str) and name != "GLOBAL" else None
        if last is not None:
            strings.append(last)


def _joined(module: str, name: str) -> str:
    return f"{module.replace('__builtin__', 'builtins')}.{name}"
