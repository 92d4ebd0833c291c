"""Report of a screen as one self-contained HTML page."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jinja2

from moltc_vllm.chem import MoleculeError
from moltc_vllm.chem.draw import draw_svg
from moltc_vllm.screening.heatmap import Heatmap
from moltc_vllm.tasks import Answer
from moltc_vllm.utils.atomic_files import new_file


class Hit(NamedTuple):
    """Pair that is drawn on the page.

    Attributes:
        names: Names of both molecules; may be empty.
        smiles: SMILES of both molecules.
        answer: Engine answer for the pair.
        row: Row number of the pair, if it has one.
    """

    names: tuple[str, str]
    smiles: tuple[str, str]
    answer: Answer
    row: int | None = None

    @property
    def direction(self) -> str:
        """Sentence about the molecule that acts on the other one; empty without a direction."""
        if self.answer.subject is None or self.answer.object is None:
            return ""
        # A pair of one molecule with itself has two equal SMILES; their order is that of the pair.
        subject = 1 if self.answer.subject != self.smiles[0] else 0
        names = [self.names[side] or self.smiles[side] for side in (subject, 1 - subject)]
        return " acts on ".join(names)


class Failure(NamedTuple):
    """Reason for failed rows.

    Attributes:
        reason: Status and error message.
        rows: Number of rows that failed for this reason.
        first: First of these rows.
    """

    reason: str
    rows: int
    first: int | None = None


class Chart(NamedTuple):
    """Chart on the page.

    Attributes:
        title: Caption of the chart.
        svg: The ``<svg>`` element, without an XML header.
    """

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Page:
    """Content of a report; empty sections are left out.

    Attributes:
        title: Heading of the page.
        settings: Settings of the screen, by name.
        counts: Number of rows by status.
        note: Warning at the top of the page.
        facts: Further figures, by name.
        charts: Charts of distributions.
        heatmap: Heat map of first against second molecules.
        hits: Pairs to draw, in order.
        hits_title: Heading of the drawn pairs.
        failures: Reasons for failed rows, the most frequent first.
        roles: Roles of the two molecules, e.g. ``solute`` and ``solvent``.
    """

    title: str
    settings: Mapping[str, str]
    counts: Mapping[str, int]
    note: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    heatmap: Heatmap | None = None
    hits: Sequence[Hit] = ()
    hits_title: str = "Pairs"
    failures: Sequence[Failure] = ()
    roles: Sequence[str] = ("first", "second")


def write_report(path: Path, page: Page) -> None:
    """Render the page and write it atomically."""
    text = _template().render(page=page)
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moltc_vllm.screening", "."),
        autoescape=True,  # names and errors come from users' files
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["drawing"] = _drawing
    return environment.get_template("report.html.j2")


def _drawing(smiles: str) -> str | None:
    """Draw a molecule as an ``<svg>`` element; return ``None`` for an invalid SMILES."""
    try:
        return draw_svg(smiles)
    except MoleculeError:
        return None
