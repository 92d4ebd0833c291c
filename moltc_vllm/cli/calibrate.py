"""``moltc calibrate``: fit a checkpoint's confidence and prediction intervals to measured pairs."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars

if TYPE_CHECKING:
    from moltc_vllm.evaluate.calibrate_checkpoint import PartResult


_TABLE_WIDTH = 110  # a narrower table would cut off its numbers


def calibrate(
    model: Annotated[Path, typer.Option(help="Checkpoint folder whose answers are calibrated.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the data files; default: environment variable MOLTC_DATA."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a data set to calibrate on; may be repeated; default: those in the "
            "checkpoint's card."
        ),
    ] = None,
    unseen_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the molecules that the checkpoint was not trained on; default: that "
            "in its card."
        ),
    ] = None,
    unseen_seed: Annotated[int, typer.Option(help="Seed of --unseen-fraction.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Largest number of pairs of each data set and part."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint folder that receives calibration.json, such as a model trained on all "
            "molecules; default: that of --model."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as a JSON object on the last line.")
    ] = False,
) -> None:
    """Fit confidence and prediction intervals to validation pairs and unseen molecules.

    Writes calibration.json, and familiarity.safetensors if the checkpoint of --model has no index
    of its training molecules and --out is not given. The table is measured by cross-validation:
    each half of the pairs with the parameters of the other half.
    """
    from moltc_vllm.data import DataError
    from moltc_vllm.data.dataset_registry import data_folder
    from moltc_vllm.evaluate.calibrate_checkpoint import calibrate_checkpoint
    from moltc_vllm.evaluate.staged_pairs import UnseenSettings
    from moltc_vllm.models.calibration import write_calibration
    from moltc_vllm.models.checkpoint import load_config
    from moltc_vllm.models.familiarity import FAMILIARITY_FILE

    target = out or model
    try:
        load_config(target)
        unseen = None if unseen_fraction is None else UnseenSettings(unseen_fraction, unseen_seed)
        with ProgressBars("pairs") as bars:
            result = calibrate_checkpoint(
                model,
                data_folder(data),
                names=dataset,
                unseen=unseen,
                limit=limit,
                progress=lambda name, done, total: bars.update(name, done, total),
            )
    except (DataError, ValueError, OSError) as error:
        fail(str(error))
    write_calibration(target, result.calibration)
    if out is None and not (model / FAMILIARITY_FILE).exists():
        result.index.save(model)
    if json:
        typer.echo(json_module.dumps([asdict(part) for part in result.results]))
    else:
        _print_table(result.results)


def _print_table(results: tuple[PartResult, ...]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        *("data set", "part", "pairs", "error before", "after", "confidence", "coverage", "width"),
        box=SIMPLE_HEAD,
        caption="calibration error before and after, mean confidence; coverage of 80 % intervals, "
        "mean width",
    )
    for part in results:
        table.add_row(
            *(part.dataset, part.part, f"{part.rows:,}"),
            *(f"{number:.3f}" for number in (part.raw_error, part.error, part.confidence)),
            "" if part.coverage is None else f"{part.coverage:.3f}",
            "" if part.width is None else f"{part.width:.3g}",
        )
    Console(width=max(Console().width, _TABLE_WIDTH)).print(table)
