"""Which way molecules are read: compiled where it works as the plain loops do, else plainly."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from moltc_vllm.chem.fast.compiled import CompiledReader

VARIABLE: Final = "MOLTC_FEATURIZE"
"""Set to ``loops`` to read every molecule the plain way; ``fast`` is the default."""

_log = logging.getLogger("moltc_vllm.chem")
_lock = threading.Lock()
_chosen: list[CompiledReader | None] = []


def compiled_reader() -> CompiledReader | None:
    """Return the compiled reader, or None if molecules are to be read the plain way.

    Chosen at the first call of a process, which takes numba's import and, the first time on a
    machine, its compilation. The compiled reader depends on a private format of RDKit's, so it
    must first agree with the plain loops on `self_test`'s molecules. If it does not, or numba is
    missing, one warning says so.

    Raises:
        ValueError: If `VARIABLE` is set to something else.
    """
    if not _chosen:
        with _lock:
            if not _chosen:
                _chosen.append(_choose())
    return _chosen[0]


def forget() -> None:
    """Choose again at the next call; for tests."""
    with _lock:
        _chosen.clear()


def _choose() -> CompiledReader | None:
    wish = os.environ.get(VARIABLE, "fast")
    if wish not in ("fast", "loops"):
        raise ValueError(f"{VARIABLE} is {wish!r}, expected 'fast' or 'loops'")
    if wish == "loops":
        return None
    try:
        from moltc_vllm.chem.fast.compiled import CompiledReader
        from moltc_vllm.chem.fast.self_test import first_difference

        reader = CompiledReader()
        difference = first_difference(reader)
    except Exception as error:  # numba may be missing, or fail to compile in many ways
        difference = f"{type(error).__name__}: {error}"
    if difference is None:
        return reader
    _log.warning("molecules are read by the plain loops, which is slower: %s", difference)
    return None
