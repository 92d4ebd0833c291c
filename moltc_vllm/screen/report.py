"""A screen's answers as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.chem import MoleculeError
from moltc_vllm.chem.draw import draw_svg
from moltc_vllm.tasks import Answer

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #1c2733 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: .35rem .7rem; text-align: left }
tbody tr { border-top: 1px solid #dde3ea }
.settings td:first-child { color: #5b6b7c } .heat td, .heat th { text-align: center }
.note { background: #fff6e0; border-left: 4px solid #e0a100; padding: .6rem 1rem }
.failed { color: #b3261e } small { color: #5b6b7c }
"""


class Row(NamedTuple):
    """One pair of a report."""

    names: tuple[str, str]
    smiles: tuple[str, str]
    answer: Answer


def write_report(
    path: Path,
    title: str,
    rows: Sequence[Row],
    settings: Mapping[str, str],
    *,
    roles: Sequence[str] = ("first", "second"),
    note: str = "",
) -> None:
    """Write the page: settings, a heat map of first against second molecules, every pair drawn.

    Args:
        path: HTML file to write.
        title: Heading.
        rows: Answered pairs in the order to show.
        settings: What was run, as name and value.
        roles: What the two molecules are.
        note: A warning to the reader, put first.
    """
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p class='note'>{html.escape(note)}</p>" if note else "",
        "<table class='settings'>",
        *(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
            for name, value in settings.items()
        ),
        "</table><h2>All against all</h2>",
        _heat_map(rows),
        "<h2>Pairs</h2><table><thead><tr>",
        *(f"<th>{html.escape(name)}</th>" for name in (*roles, "answer")),
        "</tr></thead>",
        "<tbody>",
        *(_pair(row) for row in rows),
        "</tbody></table></html>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _heat_map(rows: Sequence[Row]) -> str:
    first = list(dict.fromkeys(row.names[0] for row in rows))
    second = list(dict.fromkeys(row.names[1] for row in rows))
    answers = {row.names: row.answer for row in rows}
    numbers = [a.value for a in answers.values() if a.value is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in second)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(_cell(answers.get((name, other)), low, high) for other in second)
        + "</tr>"
        for name in first
    )
    return (
        f"<table class='heat'><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(answer: Answer | None, low: float, high: float) -> str:
    if answer is None:
        return "<td></td>"
    if answer.status != "ok":
        return f"<td class='failed' title='{html.escape(answer.error or '')}'>{answer.status}</td>"
    if answer.value is None:
        return f"<td>{html.escape(answer.label or '')}</td>"
    share = (answer.value - low) / (high - low) if high > low else 0.5
    return f"<td style='background: hsl({220 - 200 * share:.0f} 70% 84%)'>{answer.value:g}</td>"


def _pair(row: Row) -> str:
    molecules = "".join(
        f"<td>{_picture(smiles)}<br>{html.escape(name)}<br><small>{html.escape(smiles)}</small></td>"
        for name, smiles in zip(row.names, row.smiles, strict=True)
    )
    return f"<tr>{molecules}<td>{_words(row.answer)}</td></tr>"


def _picture(smiles: str) -> str:
    try:
        return draw_svg(smiles)
    except MoleculeError:
        return "<span class='failed'>cannot be drawn</span>"


def _words(answer: Answer) -> str:
    words = html.escape(answer.result)
    if answer.status != "ok":
        return f"<span class='failed'>{words}</span>"
    words = f"<b>{words}</b>"
    if answer.interval is not None:
        words += "<br>between {:g} and {:g}".format(*answer.interval)
    if answer.confidence is not None:
        words += f"<br><small>confidence {answer.confidence:.2g}</small>"
    return words
