"""Selection of the compiled reader or the Python loops for featurization.

``MOLTC_FEATURIZE=loops`` selects the loops; ``fast`` is the default.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from moltc_vllm.chem.fast.compiled import CompiledReader

FEATURIZE_ENV: Final = "MOLTC_FEATURIZE"
"""Environment variable that selects how molecules are featurized: ``fast`` or ``loops``."""

_log = logging.getLogger("moltc_vllm.chem")
_lock = threading.Lock()
_selected: list[CompiledReader | None] = []  # Empty until the first call selects a reader.


def compiled_reader() -> CompiledReader | None:
    """Return the compiled reader, or None if Python loops are to be used.

    The first call in a process selects the reader. It imports numba and compiles the reader if the
    machine has no cached code yet. The reader depends on a private format of RDKit, so it is
    selected only if it agrees with the loops on the molecules of `self_test`. If it does not, or
    numba is missing, one warning is logged.

    Raises:
        ValueError: If ``MOLTC_FEATURIZE`` is neither ``fast`` nor ``loops``.
    """
    if not _selected:
        with _lock:
            if not _selected:
                _selected.append(_select())
    return _selected[0]


def reset_compiled_reader() -> None:
    """Discard the selection, so that the next `compiled_reader` call selects again; for tests."""
    with _lock:
        _selected.clear()


def _select() -> CompiledReader | None:
    choice = os.environ.get(FEATURIZE_ENV, "fast")
    if choice not in ("fast", "loops"):
        raise ValueError(f"{FEATURIZE_ENV} is {choice!r}, expected 'fast' or 'loops'")
    if choice == "loops":
        return None
    try:
        from moltc_vllm.chem.fast.compiled import CompiledReader
        from moltc_vllm.chem.fast.self_test import first_difference

        reader = CompiledReader()
        problem = first_difference(reader)
    except Exception as error:  # numba may be missing, and compilation can fail in many ways.
        problem = f"{type(error).__name__}: {error}"
    if problem is None:
        return reader
    _log.warning("molecules are featurized by Python loops, which is slower: %s", problem)
    return None
