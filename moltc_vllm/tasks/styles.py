"""Prompt styles by name."""

from __future__ import annotations

from moltc_vllm.tasks.published import CURRENT, EARLY, MOLECULE_PROMPT, PublishedStyle
from moltc_vllm.tasks.style import GRAPH_STYLE, OWN_STYLE, PromptStyle

_OURS: dict[str, PromptStyle] = {style.name: style for style in (OWN_STYLE, GRAPH_STYLE)}

STYLES = (*_OURS, CURRENT, EARLY)


def get_style(name: str, molecule_prompt: str | None = None) -> PromptStyle:
    """The style of a name.

    Args:
        name: One of `STYLES`.
        molecule_prompt: Text of one molecule, for the published styles only.

    Raises:
        ValueError: If there is no such style, or the text does not fit it.
    """
    if name not in STYLES:
        raise ValueError(f"unknown prompt style {name!r}; there are {', '.join(STYLES)}")
    if name not in _OURS:
        return PublishedStyle(name, MOLECULE_PROMPT if molecule_prompt is None else molecule_prompt)
    if molecule_prompt is not None:
        raise ValueError(f"prompt style {name!r} has no molecule prompt")
    return _OURS[name]
