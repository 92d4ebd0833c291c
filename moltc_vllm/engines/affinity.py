"""Which requests belong together: those with the same first molecule.

A replica that has answered such a pair has the molecule encoded, and the prompt's beginning in its
prefix cache. A router sees headers only, so clients say it in one: Ray Serve's own header of a
session, which its own routers understand as well.
"""

from __future__ import annotations

import hashlib

HEADER = "x-session-id"


def affinity_key(molecule: str) -> str:
    """What stands in the header: short, printable, and nothing of the molecule itself."""
    return hashlib.blake2b(molecule.strip().encode(), digest_size=8).hexdigest()
