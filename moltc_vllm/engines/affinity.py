"""Affinity of requests to replicas by their first molecule.

A replica that has answered a pair with the same first molecule already has the molecule encoded and
the beginning of the prompt in its prefix cache. Routers see only headers, so clients send a hash of
the molecule in Ray Serve's session header, which Ray's own routers understand as well.
"""

from __future__ import annotations

import hashlib

AFFINITY_HEADER = "x-session-id"


def affinity_key(molecule: str) -> str:
    """Return the header's value: a short printable hash that does not reveal the molecule.

    Args:
        molecule: SMILES of the first molecule.
    """
    return hashlib.blake2b(molecule.strip().encode(), digest_size=8).hexdigest()
