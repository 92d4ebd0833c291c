"""``moltc data``: the data sets, what is in them, and the instructions made of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltc_vllm.cli.data_tables import print_stats, print_table
from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars
from moltc_vllm.utils.signals import sigint_watcher

if TYPE_CHECKING:
    from moltc_vllm.data.leaks import Check
    from moltc_vllm.data.splits import Parts

INTERRUPTED, LEAKS = 130, 1
_SHOWN = 20  # offending rows of a check; --json has all

app = typer.Typer(
    help="The data sets: list, describe, build instructions of them, check for leaks.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data files; default: MOLTC_DATA.")
]
Sources = Annotated[
    list[str] | None, typer.Option("--source", help="A data set; can be repeated. Default: all.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, the last line on stdout.")]


class Chain(Enum):
    """Levels of the chain of thought in the text to be answered."""

    both = "both"
    upper = "upper"
    lower = "lower"
    none = "none"


class SplitBy(Enum):
    """What a split keeps apart."""

    pair = "pair"
    molecule = "molecule"
    scaffold = "scaffold"


class Widths(Enum):
    """Where the widths of intervals are from."""

    table = "table"
    rule = "rule"


@app.command("list")
def list_sources(data: Folder = None, as_json: AsJson = False) -> None:
    """List the data sets: task, what each reveals, split, licence, and whether it is here."""
    from dataclasses import asdict

    from moltc_vllm.data import DataError
    from moltc_vllm.data.datasets import DATASETS, data_folder

    try:
        folder = data_folder(data)
    except DataError as error:
        if data is not None:
            fail(str(error))
        folder = None  # the table itself needs no files
    here = {name: bool(folder and (folder / one.file).is_file()) for name, one in DATASETS.items()}
    if as_json:
        found = {name: {**asdict(one), "here": here[name]} for name, one in DATASETS.items()}
        typer.echo(json.dumps({"sources": found}))
        return
    rows = [
        (
            name,
            one.task,
            one.file,
            ", ".join(one.reveals),
            one.split,
            "yes" if here[name] else "no",
            one.licence,
        )
        for name, one in DATASETS.items()
    ]
    print_table(("data set", "task", "file", "reveals", "split", "here", "licence"), rows)


@app.command("stats")
def stats(
    source: Sources = None,
    data: Folder = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a histogram of each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Describe the data sets: rows by split, molecules, targets, texts, widths of intervals.

    What is said of targets, texts and widths is of the train part. The width that the rule gives
    stands beside the one of the task table.
    """
    from moltc_vllm.data import DataError
    from moltc_vllm.data.datasets import DATASETS, data_folder
    from moltc_vllm.data.splits import read_parts
    from moltc_vllm.data.summary import summarize

    try:
        folder = data_folder(data)
        parts = read_parts(source or DATASETS, folder)
        found = [summarize(one, folder) for one in parts.values()]
    except DataError as error:
        fail(str(error))
    if out is not None:
        _draw(out, parts.values())
    if as_json:
        typer.echo(json.dumps({"sources": found}, allow_nan=False))
    else:
        print_stats(found)


@app.command("build")
def build_command(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    data: Folder = None,
    source: Sources = None,
    pairs: Annotated[
        int, typer.Option(min=0, help="Pairs of random molecules of the libraries.")
    ] = 100_000,
    properties: Annotated[int, typer.Option(min=0, help="Told of each molecule, at most.")] = 4,
    chain: Annotated[
        Chain, typer.Option(help="Levels in the text: properties (upper), interval (lower).")
    ] = Chain.both,
    intervals: Annotated[
        Widths, typer.Option(help="Widths: of the task table, or of the rule of `data stats`.")
    ] = Widths.table,
    split_by: Annotated[
        SplitBy, typer.Option(help="The data's own split, or the train parts divided anew.")
    ] = SplitBy.pair,
    fraction: Annotated[
        float, typer.Option(help="Of molecules or scaffolds that are set aside.")
    ] = 0.1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Draw so many rows of each data set and split.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw and order.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the instruction data as Parquet shards and a manifest.json.

    The same files, options and versions give the same bytes. The folder appears when it is whole:
    after Ctrl-C there is nothing, and the build is run again from its beginning.
    """
    begin = time.monotonic()
    try:
        # First: a thread that is there already would take the signal, and RDKit lose it.
        with sigint_watcher():
            from moltc_vllm.data import DataError
            from moltc_vllm.data.build import Options, build
            from moltc_vllm.data.datasets import DATASETS, data_folder

            options = Options(
                sources=tuple(dict.fromkeys(source or DATASETS)),
                pairs=pairs,
                properties=properties,
                chain=chain.value,
                intervals=intervals.value,
                split_by=split_by.value,
                fraction=fraction,
                limit=limit,
                seed=seed,
            )
            try:
                with ProgressBars("rows") as bars:
                    manifest = build(data_folder(data), out, options, bars.update)
            except (DataError, ValueError) as error:
                fail(str(error))
    except KeyboardInterrupt:
        fail(f"interrupted; {out} was not written", INTERRUPTED)
    if as_json:
        typer.echo(json.dumps(manifest, allow_nan=False))
        return
    size = sum((out / shard["name"]).stat().st_size for shard in manifest["shards"])
    typer.echo(
        f"{out}: {manifest['rows']:,} records in {len(manifest['shards'])} shards, "
        f"{size / 1e6:.1f} MB, {time.monotonic() - begin:.0f} s"
    )
    for molecule in manifest["bad_molecules"][:_SHOWN]:
        typer.echo(f"moltc: left out: {molecule}", err=True)


@app.command("check")
def check(
    built: Annotated[
        Path | None, typer.Argument(help="Folder of `data build`; default: the data sets.")
    ] = None,
    source: Sources = None,
    data: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Check that nothing that is trained on tells what is held back for choosing and testing.

    Exit status 1 and the rows themselves where something does.
    """
    from moltc_vllm.data import DataError
    from moltc_vllm.data.check_build import check_build
    from moltc_vllm.data.datasets import DATASETS, data_folder
    from moltc_vllm.data.leaks import check_sources

    if built is not None and source:
        fail("--source does not go with a folder of instructions: all of it is checked")
    found: list[Check] = []
    try:
        folder = data_folder(data)
        checks = check_build(built, folder) if built else check_sources(source or DATASETS, folder)
        for one in checks:
            found.append(one)
            if not as_json:
                _print_check(one)
    except DataError as error:
        fail(str(error))
    failed = sum(one.failed for one in found)
    if as_json:
        checks_found = [
            {"name": one.name, "checked": one.checked, "note": one.note, "found": one.found}
            for one in found
        ]
        typer.echo(json.dumps({"ok": not failed, "checks": checks_found}))
    if failed:
        raise typer.Exit(LEAKS)


def _print_check(one: Check) -> None:
    state = "FAIL" if one.failed else "note" if one.found else "ok"
    typer.echo(f"{state:<5}{one.name}: {one.checked:,} checked, {len(one.found):,} found")
    if one.failed:
        for line in one.found[:_SHOWN]:
            typer.echo(f"     {line}")
        if len(one.found) > _SHOWN:
            typer.echo(f"     and {len(one.found) - _SHOWN:,} more; --json names them all")


def _draw(out: Path, parts: Iterable[Parts]) -> None:
    from moltc_vllm.data.histograms import write_histogram

    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in parts:
            write_histogram(out / f"{one.source.name}.png", one)
    except ImportError as error:
        fail(f"no histograms: {error}")
    except OSError as error:
        fail(f"{out}: {error.strerror}")
