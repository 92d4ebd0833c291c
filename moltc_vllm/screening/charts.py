"""Distributions as SVG elements for a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moltc_vllm.screening.report import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#3b6ea5"
_REFERENCE = re.compile(r"#([\w-]+)")
_ID = re.compile(r' id="([^"]+)"')
_BARS = 20  # labels; more are counted together


def histogram(
    title: str, numbers: NDArray[np.float64], name: str, unit: str | None = None
) -> Chart:
    """PairingMode numbers are spread."""
    figure, axes = _axes()
    axes.hist(numbers, bins=min(60, max(10, len(numbers) // 20)), color=_INK)
    axes.set_xlabel(f"{name} ({unit})" if unit else name)
    axes.set_ylabel("pairs")
    return Chart(title, _svg(figure, title))


def bars(title: str, counts: Mapping[str, int]) -> Chart:
    """PairingMode often each label is; the most frequent ones, if there are many."""
    ranked = sorted(counts.items(), key=lambda one: -one[1])
    shown = ranked[:_BARS]
    if rest := sum(count for _, count in ranked[_BARS:]):
        shown.append((f"{len(ranked) - _BARS} others", rest))
    figure, axes = _axes(height=1.0 + 0.26 * len(shown))
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], color=_INK)
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.set_xlabel("pairs")
    return Chart(title, _svg(figure, title))


def _axes(height: float = 2.8) -> tuple[Figure, Axes]:
    # Not pyplot: it would choose a window system, and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure, salt: str) -> str:
    """The element alone, without ids that nothing refers to: others stand on the same page."""
    import matplotlib as mpl

    stream = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    used = set(_REFERENCE.findall(text))
    return _ID.sub(lambda found: found[0] if found[1] in used else "", text)
