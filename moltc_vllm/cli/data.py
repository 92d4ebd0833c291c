"""``moltc data``: list and describe data sets, build instruction data, check for leaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.data_tables import print_stats, print_table
from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars
from moltc_vllm.utils.signals import sigint_watcher

if TYPE_CHECKING:
    from moltc_vllm.data.dataset_registry import DatasetSpec
    from moltc_vllm.data.leaks import CheckResult
    from moltc_vllm.data.splits import DatasetSplits

EXIT_INTERRUPTED, EXIT_LEAKS = 130, 1
_MAX_LINES = 20  # findings of a check, or bad molecules, that are printed without --json

app = typer.Typer(
    help="List and describe data sets, build instruction data, check for leaks.",
    no_args_is_help=True,
)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the data files; default: value of MOLTC_DATA."),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", help="Name of a data set; can be repeated. Default: all."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line on stdout.")
]


class Chain(Enum):
    """Levels of the chain of thought in the text that a model is trained to generate."""

    both = "both"
    upper = "upper"
    lower = "lower"
    none = "none"


class SplitBy(Enum):
    """Unit whose occurrences all belong to the same split."""

    pair = "pair"
    molecule = "molecule"
    scaffold = "scaffold"


class IntervalWidths(Enum):
    """Origin of the widths of intervals."""

    table = "table"
    rule = "rule"


@app.command("list")
def list_datasets(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the data sets: task, file, revealed answers, split, license, and whether it exists."""
    from moltc_vllm.data import DataError
    from moltc_vllm.data.dataset_registry import DATASETS, data_folder

    try:
        folder = data_folder(data)
    except DataError as error:
        if data is not None:
            fail(str(error))
        folder = None  # the registry can be listed without any files
    exists = {
        name: bool(folder and (folder / spec.file).is_file()) for name, spec in DATASETS.items()
    }
    if as_json:
        sources = {
            name: {**_spec_fields(spec), "here": exists[name]} for name, spec in DATASETS.items()
        }
        typer.echo(json.dumps({"sources": sources}))
        return
    rows = [
        (
            name,
            spec.task,
            spec.file,
            ", ".join(spec.reveals),
            spec.split,
            "yes" if exists[name] else "no",
            spec.license,
        )
        for name, spec in DATASETS.items()
    ]
    print_table(("data set", "task", "file", "reveals", "split", "exists", "license"), rows)


@app.command("stats")
def print_statistics(
    source: SourceOption = None,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write a histogram of each data set to.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe data sets: rows by split, molecules, targets, texts, widths of intervals.

    Targets, texts and widths are those of the train split. The width that the rule chooses is
    shown beside the width of the task table.
    """
    from moltc_vllm.data import DataError
    from moltc_vllm.data.dataset_registry import DATASETS, data_folder
    from moltc_vllm.data.splits import read_splits
    from moltc_vllm.data.summary import summarize

    try:
        folder = data_folder(data)
        datasets = read_splits(source or DATASETS, folder)
        summaries = [summarize(dataset, folder) for dataset in datasets.values()]
    except DataError as error:
        fail(str(error))
    if out is not None:
        _write_histograms(out, datasets.values())
    if as_json:
        typer.echo(json.dumps({"sources": summaries}, allow_nan=False))
    else:
        print_stats(summaries)


@app.command("build")
def build_instructions(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist or be empty.")],
    data: DataOption = None,
    source: SourceOption = None,
    pairs: Annotated[
        int, typer.Option(min=0, help="Number of pairs of random molecules of the libraries.")
    ] = 100_000,
    properties: Annotated[
        int, typer.Option(min=0, help="Largest number of properties to state per molecule.")
    ] = 4,
    chain: Annotated[
        Chain,
        typer.Option(help="Levels in the text: `upper` has properties, `lower` has intervals."),
    ] = Chain.both,
    intervals: Annotated[
        IntervalWidths,
        typer.Option(help="Interval widths: of the task table, or of the rule of `data stats`."),
    ] = IntervalWidths.table,
    split_by: Annotated[
        SplitBy,
        typer.Option(
            help="Splits: `pair` uses those of the data; `molecule` and `scaffold` divide the "
            "train split anew."
        ),
    ] = SplitBy.pair,
    fraction: Annotated[
        float, typer.Option(help="Fraction of the molecules or scaffolds to exclude from training.")
    ] = 0.1,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Number of rows of each data set and split to sample."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all samples and orders.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write instruction data as Parquet shards and a manifest.json.

    Equal files, options and versions give equal bytes. The folder appears when it is complete;
    Ctrl-C leaves nothing, and the build has to be started again.
    """
    started_at = time.monotonic()
    try:
        # The watcher comes before the imports, because threads that exist already get the signal.
        with sigint_watcher():
            from moltc_vllm.data.build import BuildOptions, build
            from moltc_vllm.data.dataset_registry import DATASETS, data_folder

            options = BuildOptions(
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
            except ValueError as error:  # includes DataError
                fail(str(error))
    except KeyboardInterrupt:
        fail(f"interrupted; {out} was not written", EXIT_INTERRUPTED)
    if as_json:
        typer.echo(json.dumps(manifest, allow_nan=False))
        return
    size = sum((out / shard["name"]).stat().st_size for shard in manifest["shards"])
    typer.echo(
        f"{out}: {manifest['rows']:,} records in {len(manifest['shards'])} shards, "
        f"{size / 1e6:.1f} MB, {time.monotonic() - started_at:.0f} s"
    )
    for molecule in manifest["bad_molecules"][:_MAX_LINES]:
        typer.echo(f"moltc: left out: {molecule}", err=True)


@app.command("check")
def check_leaks(
    built: Annotated[
        Path | None,
        typer.Argument(help="Folder that `data build` wrote; default: check the data sets."),
    ] = None,
    source: SourceOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no train record reveals an answer that is held out for validation or test.

    If one does, the exit status is 1 and the rows are printed.
    """
    from moltc_vllm.data import DataError
    from moltc_vllm.data.check_build import check_build
    from moltc_vllm.data.dataset_registry import DATASETS, data_folder
    from moltc_vllm.data.leaks import check_datasets

    if built is not None and source:
        fail("--source does not go with a folder of instructions: the whole folder is checked")
    results: list[CheckResult] = []
    try:
        folder = data_folder(data)
        checks = check_build(built, folder) if built else check_datasets(source or DATASETS, folder)
        for result in checks:
            results.append(result)
            if not as_json:
                _print_result(result)
    except DataError as error:
        fail(str(error))
    has_failed = any(result.failed for result in results)
    if as_json:
        entries = [
            {
                "name": result.name,
                "checked": result.checked,
                "note": result.is_note,
                "found": result.findings,
            }
            for result in results
        ]
        typer.echo(json.dumps({"ok": not has_failed, "checks": entries}))
    if has_failed:
        raise typer.Exit(EXIT_LEAKS)


def _spec_fields(spec: DatasetSpec) -> dict[str, Any]:
    """Return the fields of a data set with their names in the JSON output."""
    from dataclasses import asdict

    fields = asdict(spec)
    fields["licence"] = fields.pop("license")
    return fields


def _print_result(result: CheckResult) -> None:
    state = "FAIL" if result.failed else "note" if result.findings else "ok"
    count = len(result.findings)
    typer.echo(f"{state:<5}{result.name}: {result.checked:,} checked, {count:,} found")
    if result.failed:
        for line in result.findings[:_MAX_LINES]:
            typer.echo(f"     {line}")
        if count > _MAX_LINES:
            typer.echo(f"     and {count - _MAX_LINES:,} more; --json prints all of them")


def _write_histograms(out: Path, datasets: Iterable[DatasetSplits]) -> None:
    from moltc_vllm.data.histograms import write_histogram

    try:
        out.mkdir(parents=True, exist_ok=True)
        for dataset in datasets:
            write_histogram(out / f"{dataset.spec.name}.png", dataset)
    except ImportError as error:
        fail(f"histograms need matplotlib: {error}")
    except OSError as error:
        fail(f"{out}: {error.strerror}")
