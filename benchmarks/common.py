"""Helpers of the benchmarks: molecule files, the environment, JSON output."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from moltc_vllm.tables import open_table, read_columns

DATA = Path(os.environ.get("MOLTC_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Folder of the data files."""

MOLECULE_FILES = {
    "zinc250k": "screen_zinc250k_29k.smi.gz",
    "approved": "screen_approved_drugs.csv.gz",
}
"""Files of molecules by name: a screening library, and approved drugs of very different sizes."""


def read_smiles(path: Path) -> Iterator[str]:
    """Read the SMILES of a molecule file, from all columns with ``smiles`` in their name.

    Args:
        path: SMILES file, CSV or another format of `moltc_vllm.tables`.

    Yields:
        SMILES in the order of the file.
    """
    columns = [name for name in open_table(path).columns if "smiles" in name]
    if not columns:
        return
    for cells in read_columns(path, columns):
        yield from filter(None, cells)


def environment_info(*packages: str) -> dict[str, Any]:
    """Describe the machine and the software of a measurement.

    Args:
        packages: Names of distributions whose versions are of interest.
    """
    return {
        "machine": platform.machine(),
        "processor": _processor_name(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed_version(name) for name in packages},
    }


def installed_version(name: str) -> str | None:
    """Return the version of a distribution, or ``None`` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json [FILE]`` to a parser."""
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write all results as JSON to FILE; without FILE, print them as the last line",
    )


def write_json(result: dict[str, Any], path: Path | None) -> None:
    """Write the results to the destination that the option ``--json`` names.

    Args:
        result: Results of the benchmark.
        path: Value of the option: a file, ``-`` for standard output, or ``None`` for no output.
    """
    if path is None:
        return
    if path == Path("-"):
        print(json.dumps(result))
    else:
        path.write_text(json.dumps(result, indent=2) + "\n")


def write_run_json(
    options: argparse.Namespace, result: dict[str, Any], packages: tuple[str, ...]
) -> None:
    """Write the results with the options and the environment of the run; see `write_json`.

    Args:
        options: Parsed options, including ``--json``.
        result: Results of the benchmark.
        packages: Names of distributions whose versions are of interest.
    """
    option_values = {name: str(value) for name, value in vars(options).items() if name != "json"}
    write_json({"asked": option_values, **result, **environment_info(*packages)}, options.json)


def _processor_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), None)
