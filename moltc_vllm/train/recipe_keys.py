"""Recipe keys that version 0.2 renamed; the old names are accepted until version 0.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RECIPE_KEYS = {
    "start": "init_from",
    "parts": "mixture",
    "steps": "max_steps",
    "warmup": "warmup_steps",
    "floor": "min_lr_ratio",
    "clip": "max_grad_norm",
    "average": "ema_decay",
}
"""New names of a recipe's own keys, by old name."""

MIXTURE_KEYS = {"pairs": "batch_size"}
"""New names of the keys of each data set in ``mixture``, by old name."""

LOSS_KEYS = {
    "soften": "gaussian_label_sigma",
    "expected": "expected_value_weight",
    "whole": "full_text_fraction",
    "rest": "text_loss_weight",
}
"""New names of the keys of ``loss``, by old name."""


def renamed_keys(path: Sequence[str]) -> Mapping[str, str]:
    """Return the new names, by old name, of the keys in one mapping of a recipe.

    Args:
        path: Keys that lead to the mapping, in either spelling; empty for the recipe itself.
    """
    match [RECIPE_KEYS.get(path[0], path[0]), *path[1:]] if path else []:
        case []:
            return RECIPE_KEYS
        case ["mixture", _]:
            return MIXTURE_KEYS
        case ["loss"]:
            return LOSS_KEYS
    return {}


def other_spelling(path: Sequence[str], key: str) -> str | None:
    """Return the old name of a renamed key, or the new name of an old one.

    Args:
        path: Keys that lead to the mapping that holds the key.
        key: Key in that mapping.

    Returns:
        The other name; ``None`` if the key was not renamed.
    """
    for old, new in renamed_keys(path).items():
        if key in (old, new):
            return new if key == old else old
    return None


def find_old_keys(content: Any) -> dict[str, str]:
    """Find the old names in a recipe's content.

    Args:
        content: Recipe as read from a file, not validated yet.

    Returns:
        New names by old name, in the order of the content.

    Raises:
        ValueError: If a mapping has a key under both names.
    """
    old_keys: dict[str, str] = {}
    for mapping, renamed in _mappings(content):
        for old, new in renamed.items():
            if old not in mapping:
                continue
            if new in mapping:
                raise ValueError(both_names_message(old, new))
            old_keys[old] = new
    return old_keys


def both_names_message(old: str, new: str) -> str:
    """Return the error message for a key that is given under both of its names."""
    return f"{old!r} is the old name of {new!r} and both are given; give {new!r} only"


def _mappings(content: Any) -> Iterator[tuple[Mapping[str, Any], Mapping[str, str]]]:
    """Yield every mapping that may hold old names, with the new names of its keys."""
    if not isinstance(content, Mapping):
        return
    yield content, RECIPE_KEYS
    if isinstance(loss := content.get("loss"), Mapping):
        yield loss, LOSS_KEYS
    for key in ("mixture", "parts"):
        if isinstance(mixture := content.get(key), Mapping):
            for component in mixture.values():
                if isinstance(component, Mapping):
                    yield component, MIXTURE_KEYS
