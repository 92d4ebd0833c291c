"""Charts of a report as SVG elements."""

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

_COLOR = "#3b6ea5"
_REFERENCE = re.compile(r"#([\w-]+)")
_ID = re.compile(r' id="([^"]+)"')
_MAX_BARS = 20


def histogram(
    title: str, numbers: NDArray[np.float64], name: str, unit: str | None = None
) -> Chart:
    """Draw the distribution of numbers.

    Args:
        title: Title of the chart.
        numbers: Numbers to draw, ``[count]``.
        name: Label of the axis.
        unit: Unit of the numbers, if they have one.
    """
    figure, axes = _axes()
    axes.hist(numbers, bins=min(60, max(10, len(numbers) // 20)), color=_COLOR)
    axes.set_xlabel(f"{name} ({unit})" if unit else name)
    axes.set_ylabel("pairs")
    return Chart(title, _svg(figure, title))


def bars(title: str, counts: Mapping[str, int]) -> Chart:
    """Draw the counts of the most frequent labels; the others are summed up in one bar."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = ranked[:_MAX_BARS]
    if rest := sum(count for _, count in ranked[_MAX_BARS:]):
        shown.append((f"{len(ranked) - _MAX_BARS} others", rest))
    figure, axes = _axes(height=1.0 + 0.26 * len(shown))
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], color=_COLOR)
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.set_xlabel("pairs")
    return Chart(title, _svg(figure, title))


def _axes(height: float = 2.8) -> tuple[Figure, Axes]:
    # pyplot would choose a window system and keep a reference to every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure, salt: str) -> str:
    """Return a figure as an ``<svg>`` element without a header.

    Several charts share one page, so ids that nothing refers to are dropped and the others are
    made unique by the salt.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}
    with mpl.rc_context(options):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    used_ids = set(_REFERENCE.findall(text))
    return _ID.sub(lambda match: match[0] if match[1] in used_ids else "", text)
