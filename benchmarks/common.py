"""What the benchmarks share: molecules of a file, the machine, one JSON object at the end."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("MOLTC_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""The staged datasets."""

SETS = {"zinc250k": "screen_zinc250k_29k.smi.gz", "approved": "screen_approved_drugs.csv.gz"}
"""What molecules are taken from: a screening library, and drugs with their odd sizes."""


def read_smiles(path: Path) -> Iterator[str]:
    """SMILES of a ``.smi`` file, or of all columns of a ``.csv`` that are named so; gzip or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        if ".csv" in path.suffixes:
            rows = csv.DictReader(file)
            columns = [name for name in rows.fieldnames or () if "smiles" in name]
            yield from (row[name] for row in rows for name in columns if row[name])
        else:
            yield from (line.split()[0] for line in file if line.strip())


def described(*packages: str) -> dict[str, Any]:
    """Where figures were measured: machine, cores, versions of these packages."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in packages},
    }


def installed(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json [FILE]``."""
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write all figures to FILE, or as the last line of the output",
    )


def write_json(result: dict[str, Any], path: Path | None) -> None:
    """Write what `add_json_option` asked for."""
    if path is None:
        return
    if path == Path("-"):
        print(json.dumps(result))
    else:
        path.write_text(json.dumps(result, indent=2) + "\n")


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), None)
