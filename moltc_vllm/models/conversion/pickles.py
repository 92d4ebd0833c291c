"""Safe reading of untrusted ``torch.save`` files, with one-line error messages.

Unpickling can execute arbitrary code, so `torch.load` is called with ``weights_only=True``. The
name of the code that a rejected file would run is read from its opcodes, without running it.
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
    """File that was not written by ``torch.save``, is damaged, or would run code."""


def read_pickle(path: Path) -> Any:
    """Load a ``torch.save`` file that holds tensors in plain containers, on the CPU.

    Tensors of a file in the zip format are memory-mapped.

    Raises:
        PickleError: If the file is missing or cannot be loaded safely; the message is one line.
    """
    _reject_other_formats(path)
    try:
        # Only the zip format can be memory-mapped.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged files raise a dozen different classes
        raise PickleError(f"{path} {_cause(path, str(error))}") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Load a file that holds a plain state dict.

    Raises:
        PickleError: If the file cannot be loaded or holds something else.
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


def _reject_other_formats(path: Path) -> None:
    """Raise `PickleError` for formats that are commonly confused with ``torch.save`` files."""
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
    # A safetensors file starts with the length of its JSON header. `torch.load` would accept it.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        raise PickleError(f"{path} is a safetensors file, expected one written by torch.save")


def _cause(path: Path, message: str) -> str:
    """Return why a file could not be loaded, as the predicate of an error message."""
    damaged, foreign = "is truncated or damaged", "is not a file written by torch.save"
    try:
        names = list(_referenced_globals(path))
    except Exception:  # truncated, or not a pickle
        with path.open("rb") as file:
            start = file.read(4)
        if zipfile.is_zipfile(path):  # a complete archive with other content
            return foreign
        return damaged if start[:1] == _PICKLE or _ZIP.startswith(start) else foreign
    match = _REFUSED_GLOBAL.search(message)
    if match:
        refused = match[1].rstrip(".")
        names.insert(0, next((name for name in names if name.endswith(refused)), refused))
    for name in names:
        if not name.startswith(_HARMLESS):
            return f"would run {name!r} when loaded; refused"
    return damaged if zipfile.is_zipfile(path) or "unexpected EOF" in message else foreign


def _referenced_globals(path: Path) -> Iterator[str]:
    """Yield the functions and classes that a file's pickles refer to, without running them.

    Raises:
        Exception: Any class, if the file does not contain a complete pickle.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = (
                member for member in archive.namelist() if member.split("/")[1:] == ["data.pkl"]
            )
            with archive.open(name) as stream:
                yield from _globals_in_pickle(stream)
        return
    with path.open("rb") as stream:
        # The legacy format has four pickles: magic number, version, machine and the object.
        yield from _globals_in_pickle(stream)
        for _ in range(3):
            if not stream.peek(1):
                return
            yield from _globals_in_pickle(stream)


def _globals_in_pickle(stream: IO[bytes]) -> Iterator[str]:
    """Yield the globals of the next pickle in a stream, as ``module.name``."""
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    top: str | None = None  # top of the stack, if it is a string
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "MEMOIZE" or name.endswith("PUT"):
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = top
            continue
        if name == "GLOBAL":
            yield _qualified_name(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL" and len(strings) > 1:
            yield _qualified_name(*strings[-2:])
        elif name.endswith("GET"):
            argument = memo.get(int(argument))
        top = argument if isinstance(argument, str) and name != "GLOBAL" else None
        if top is not None:
            strings.append(top)


def _qualified_name(module: str, name: str) -> str:
    return f"{module.replace('__builtin__', 'builtins')}.{name}"
