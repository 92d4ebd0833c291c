"""The 963 side effects that pairs of drugs are reported with, as in TWOSIDES.

The names in ``side_effects.txt`` are those of the data, one per line, the most frequent first.

Source: Tatonetti et al., Sci. Transl. Med. 2012, in the selection of Zitnik et al. 2018 (Decagon).
"""

from __future__ import annotations

from importlib.resources import files

SIDE_EFFECTS = tuple(
    files("moltc_vllm.tasks").joinpath("side_effects.txt").read_text("utf-8").splitlines()
)
"""Names of all side effects."""
