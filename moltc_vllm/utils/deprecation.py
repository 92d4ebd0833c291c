"""Warnings about old names that still work for one release."""

from __future__ import annotations

import warnings

REMOVED_IN = "0.3"


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that a name has been renamed; the old one works until version 0.3.

    Python shows `FutureWarning` by default, even outside ``__main__``, so users of recipes,
    requests and scripts see it.

    Args:
        old: Name that was used, with its kind, e.g. ``recipe key 'steps'``.
        new: Name to use instead.
        stacklevel: Frames between the warning and the user's code, as in `warnings.warn`.
    """
    warnings.warn(
        f"{old} was renamed to {new}; the old name stops working in version {REMOVED_IN}",
        FutureWarning,
        stacklevel=stacklevel + 1,
    )
