"""What ``moltc data`` prints for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_WIDE = 200


def print_stats(found: list[dict[str, Any]]) -> None:
    """Print what `moltc_vllm.data.summary` found: rows, targets, and widths of intervals."""
    counts = []
    for one in found:
        rows = one["rows"]
        kept = [f"{rows[split]['kept']:,}" for split in rows]
        left = (sum(part[what] for part in rows.values()) for what in ("missing", "held_back"))
        roles = " and ".join(f"{n:,}" for n in one["molecules_by_role"].values())
        counts.append((one["name"], *kept, *(f"{n:,}" for n in left), roles))
    print_table(
        (
            "data set",
            "train",
            "valid",
            "test",
            "missing",
            "held back",
            "first and second molecules",
        ),
        counts,
    )
    print_table(
        ("data set", "task", "target of the train part", "answer, words"),
        [(one["name"], one["task"], _target(one["target"]), _words(one["text"])) for one in found],
    )
    widths = [
        (one["name"], *(_width(one["intervals"][which]) for which in one["intervals"]))
        for one in found
        if "intervals" in one
    ]
    if widths:
        print_table(("width of intervals", "task table", "rule", "rule on valid"), widths)


def _target(target: dict[str, Any] | None) -> str:
    if target is None:
        return "none"
    if "labels" in target:
        most = next(iter(target["labels"]))
        return (
            f"{len(target['labels'])} labels, {target['largest_share']:.1%} {most}, "
            f"balance {target['balance']:.2f}"
        )
    if "terms" in target:
        return f"{target['terms']:,} terms, {_moments(target['terms_per_row'])} a row"
    return f"{_moments(target)} {target['unit']}".rstrip()


def _moments(values: dict[str, Any]) -> str:
    low, high = f"{values['min']:.4g}", f"{values['max']:.4g}"
    return f"{values['mean']:.4g} ± {values['std']:.3g} ({low} to {high})"


def _words(text: dict[str, Any] | None) -> str:
    return "none" if text is None else f"{text['words']['mean']:.1f}, max {text['words']['max']:g}"


def _width(intervals: dict[str, Any]) -> str:
    if "error" in intervals:
        return str(intervals["error"])
    scale = "" if intervals["scale"] == "linear" else f" ({intervals['scale']})"
    return f"{intervals['width']:g}{scale}"


def print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print one table, as wide as it is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width that lines should be broken at
        console.width = _WIDE
    console.print(table)
