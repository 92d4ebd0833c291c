"""Registry of the prompt styles by name."""

from __future__ import annotations

from moltc_vllm.tasks.prompt_style import GRAPH_STYLE, MOLTC_STYLE, PromptStyle
from moltc_vllm.tasks.published_styles import (
    MOLECULE_PROMPT,
    MOLTC_2024,
    MOLTC_2024_EARLY,
    PublishedStyle,
)

_OWN_STYLES: dict[str, PromptStyle] = {style.name: style for style in (MOLTC_STYLE, GRAPH_STYLE)}

STYLES = (*_OWN_STYLES, MOLTC_2024, MOLTC_2024_EARLY)


def get_style(name: str, molecule_prompt: str | None = None) -> PromptStyle:
    """Return the prompt style with the given name.

    Args:
        name: Name of a style in `STYLES`.
        molecule_prompt: Template for one molecule's text, for the published styles only. Default:
            the published template.

    Raises:
        ValueError: If the name is unknown or the style does not accept the template.
    """
    if name not in STYLES:
        raise ValueError(f"unknown prompt style {name!r}; known styles: {', '.join(STYLES)}")
    if name not in _OWN_STYLES:
        return PublishedStyle(name, MOLECULE_PROMPT if molecule_prompt is None else molecule_prompt)
    if molecule_prompt is not None:
        raise ValueError(f"prompt style {name!r} does not use a molecule prompt")
    return _OWN_STYLES[name]
