"""A screen's answers as one HTML page that needs nothing else."""

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
    """A pair that is drawn.

    Attributes:
        names: Of its molecules; may be empty.
        smiles: Of its molecules.
        answer: About it.
        row: Its number, if it has one.
    """

    names: tuple[str, str]
    smiles: tuple[str, str]
    answer: Answer
    row: int | None = None


class Failure(NamedTuple):
    """A reason why rows have no answer: how many, and the first one."""

    reason: str
    rows: int
    first: int | None = None


class Chart(NamedTuple):
    """A drawing with what it shows; ``svg`` is the element without an XML header."""

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a report; empty parts are left out.

    Attributes:
        title: Heading.
        settings: What was run, as name and value.
        counts: Rows of each status.
        note: A warning to the reader, put first.
        facts: Further figures, as name and value.
        charts: Distributions.
        heatmap: First against second molecules.
        hits: Pairs to be drawn, in their order.
        hits_title: What they are.
        failures: Reasons, most frequent first.
        roles: What the two molecules are.
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
    """Write the page, wholly or not at all."""
    text = _template().render(page=page)
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moltc_vllm.screening", "."),
        autoescape=True,  # names and errors are whatever a file had in it
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["picture"] = _picture
    return environment.get_template("report.html.j2")


def _picture(smiles: str) -> str | None:
    """A molecule as an ``<svg>`` element; ``None`` if it is none."""
    try:
        return draw_svg(smiles)
    except MoleculeError:
        return None
