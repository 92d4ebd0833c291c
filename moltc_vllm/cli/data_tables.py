"""Tables that ``moltc data`` prints without ``--json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_WIDTH_WITHOUT_TERMINAL = 200


def print_stats(summaries: list[dict[str, Any]]) -> None:
    """Print tables of rows, targets and interval widths.

    Args:
        summaries: Results of `moltc_vllm.data.summary.summarize`, one per data set.
    """
    print_table(
        (
            "data set",
            "train",
            "valid",
            "test",
            "missing",
            "held out",
            "first and second molecules",
        ),
        [_count_cells(summary) for summary in summaries],
    )
    print_table(
        ("data set", "task", "target of the train split", "answer, words"),
        [
            (
                summary["name"],
                summary["task"],
                _format_target(summary["target"]),
                _format_words(summary["text"]),
            )
            for summary in summaries
        ],
    )
    widths = [
        (summary["name"], *map(_format_width, summary["intervals"].values()))
        for summary in summaries
        if "intervals" in summary
    ]
    if widths:
        print_table(("width of intervals", "task table", "rule", "rule on valid"), widths)


def print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table; its width is that of the terminal, or 200 columns in a file or pipe.

    Args:
        head: Names of the columns.
        rows: Cells of each row.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    console.print(table)


def _count_cells(summary: dict[str, Any]) -> tuple[str, ...]:
    by_split = summary["rows"].values()
    kept = [f"{counts['kept']:,}" for counts in by_split]
    removed = [
        f"{sum(counts[reason] for counts in by_split):,}" for reason in ("missing", "held_back")
    ]
    molecules = " and ".join(f"{count:,}" for count in summary["molecules_by_role"].values())
    return (summary["name"], *kept, *removed, molecules)


def _format_target(target: dict[str, Any] | None) -> str:
    if target is None:
        return "none"
    if "labels" in target:
        most_frequent = next(iter(target["labels"]))
        return (
            f"{len(target['labels'])} labels, {target['largest_share']:.1%} {most_frequent}, "
            f"balance {target['balance']:.2f}"
        )
    if "terms" in target:
        return f"{target['terms']:,} terms, {_format_moments(target['terms_per_row'])} per row"
    return f"{_format_moments(target)} {target['unit']}".rstrip()


def _format_moments(values: dict[str, Any]) -> str:
    low, high = f"{values['min']:.4g}", f"{values['max']:.4g}"
    return f"{values['mean']:.4g} ± {values['std']:.3g} ({low} to {high})"


def _format_words(text: dict[str, Any] | None) -> str:
    return "none" if text is None else f"{text['words']['mean']:.1f}, max {text['words']['max']:g}"


def _format_width(intervals: dict[str, Any]) -> str:
    if "error" in intervals:
        return str(intervals["error"])
    scale = "" if intervals["scale"] == "linear" else f" ({intervals['scale']})"
    return f"{intervals['width']:g}{scale}"
