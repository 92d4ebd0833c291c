"""Compare the CPU time of featurizing SMILES with that of RDKit's parsing alone.

One process, one core, CPU time. Each method reads every chunk of molecules, in a rotating order, so
that all methods see the same state of the machine. A round is a pass over all chunks; figures are
medians over the rounds, and a ratio compares times of the same round. All methods of this project
end with bonds in CSR form.

    python benchmarks/featurize.py --json featurize.json
    python benchmarks/featurize.py --check-all

The second command compares the compiled reader with the Python loops on every molecule of the data
files, in three spellings, its canonical key with the key that RDKit's defaults give, and the scan
of its text with what standardization changes. It exits with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import DATA, MOLECULE_FILES, add_json_option, environment_info, read_smiles, write_json
from featurize_check import check_all
from rdkit import Chem

from moltc_vllm.chem import (
    DEFAULT_LIMITS,
    canonical_key,
    featurize_library,
    featurize_packed,
    molecule,
    pack,
    packed_of,
    parse_smiles,
)
from moltc_vllm.chem.chunk import read_chunk
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.featurize_loops import featurize_loops
from moltc_vllm.chem.parse import clean_smiles, parse_for_graph
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.chem.standardize import _standardize

CHUNK = 250

Method = Callable[[list[str]], object]


def rdkit_parse(chunk: list[str]) -> object:
    """Parse with RDKit's defaults and drop the molecules: the floor of all methods."""
    for smiles in chunk:
        Chem.MolFromSmiles(smiles)
    return None


def single_molecules(chunk: list[str]) -> object:
    """Read molecule by molecule: check, sanitize partially, pack in compiled code."""
    return [
        featurize_packed(parse_for_graph(clean_smiles(smiles, DEFAULT_LIMITS), DEFAULT_LIMITS))
        for smiles in chunk
    ]


def library_chunk(chunk: list[str]) -> object:
    """Read the whole chunk like `featurize_library`, and split it into rows."""
    return list(read_chunk(chunk, DEFAULT_LIMITS, canonical=False).rows())


def full_sanitization(chunk: list[str]) -> object:
    """Read molecule by molecule with all of RDKit's sanitization."""
    return [featurize_packed(parse_smiles(smiles)) for smiles in chunk]


def python_loops(chunk: list[str]) -> object:
    """Featurize in Python loops over atoms and bonds, with CSR by numpy."""
    return [pack(featurize_loops(parse_smiles(smiles))) for smiles in chunk]


def key_and_graph(chunk: list[str]) -> object:
    """Compute canonical key and graph, as a server does for a molecule that is not cached."""
    molecule._cached_key.cache_clear()
    molecule._canonicalize.cache_clear()
    return [packed_of(canonical_key(smiles)) for smiles in chunk]


def standardized_key_and_graph(chunk: list[str]) -> object:
    """Compute the key of the cleaned-up molecule and its graph."""
    molecule._cached_key.cache_clear()
    molecule._canonicalize.cache_clear()
    _standardize.cache_clear()
    return [packed_of(canonical_key(smiles, standardization="cleanup")) for smiles in chunk]


def rdkit_parse_write_twice(chunk: list[str]) -> object:
    """Parse and write twice with RDKit's defaults: the floor of ``key_and_graph``."""
    return [
        Chem.MolToSmiles(Chem.MolFromSmiles(Chem.MolToSmiles(Chem.MolFromSmiles(smiles))))
        for smiles in chunk
    ]


def installed_methods() -> dict[str, Method]:
    """Return all methods by name; PyG's only if it is installed."""
    methods: dict[str, Method] = {
        method.__name__: method
        for method in (
            rdkit_parse,
            single_molecules,
            library_chunk,
            full_sanitization,
            python_loops,
            key_and_graph,
            standardized_key_and_graph,
            rdkit_parse_write_twice,
        )
    }
    try:
        from torch_geometric.utils import from_smiles
    except ImportError:
        return methods
    return {**methods, "pyg_from_smiles": lambda chunk: [from_smiles(smiles) for smiles in chunk]}


def measure(smiles: list[str], rounds: int, pyg_molecules: int) -> dict[str, Any]:
    """Measure every method.

    Args:
        smiles: Molecules to read.
        rounds: Number of passes over all molecules.
        pyg_molecules: Number of molecules that PyG reads, from the beginning; it is slow.

    Returns:
        Figures by method.
    """
    chunks = [smiles[i : i + CHUNK] for i in range(0, len(smiles), CHUNK)]
    methods = list(installed_methods().items())
    cpu_seconds: dict[str, list[float]] = {name: [] for name, _ in methods}
    floor_of_pyg = []
    for _, method in methods:
        method(chunks[0])  # Warm up.
    for round_index in range(rounds):
        seconds, seconds_of_floor = _run_round(chunks, methods, round_index, pyg_molecules)
        for name in cpu_seconds:
            cpu_seconds[name].append(seconds[name])
        floor_of_pyg.append(seconds_of_floor)
    figures = {}
    for name, values in cpu_seconds.items():
        is_pyg = name.startswith("pyg")
        count = min(len(smiles), -(-pyg_molecules // CHUNK) * CHUNK) if is_pyg else len(smiles)
        floor = floor_of_pyg if is_pyg else cpu_seconds["rdkit_parse"]
        figures[name] = _summarize(count, values, floor)
    return figures


def _run_round(
    chunks: list[list[str]], methods: list[tuple[str, Method]], round_index: int, pyg_molecules: int
) -> tuple[Counter[str], float]:
    """Return CPU seconds by method, and those of the floor on the molecules that PyG reads."""
    seconds: Counter[str] = Counter()
    floor_of_pyg = 0.0
    for index, chunk in enumerate(chunks):
        is_read_by_pyg = index * CHUNK < pyg_molecules
        shift = (index + round_index) % len(methods)
        for name, method in methods[shift:] + methods[:shift]:
            if name.startswith("pyg") and not is_read_by_pyg:
                continue
            start = time.process_time()
            result = method(chunk)
            elapsed = time.process_time() - start
            del result
            seconds[name] += elapsed
            floor_of_pyg += elapsed if name == "rdkit_parse" and is_read_by_pyg else 0.0
    return seconds, floor_of_pyg


def _summarize(count: int, seconds: list[float], floor: list[float]) -> dict[str, Any]:
    ratios = [own / bare for own, bare in zip(seconds, floor, strict=True)]
    return {
        "molecules": count,
        "molecules_per_second_per_core": round(count / statistics.median(seconds)),
        "us_per_molecule": round(statistics.median(seconds) / count * 1e6, 1),
        "ratio_to_rdkit_parse": round(statistics.median(ratios), 3),
        "ratio_to_rdkit_parse_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def measure_pool(smiles: list[str], workers: int, canonical: bool) -> dict[str, float]:
    """Measure wall-clock throughput of `featurize_library` after its processes have started."""
    start = time.perf_counter()
    rows = featurize_library(iter(smiles), workers=workers, canonical=canonical)
    first_rows = sum(1 for _ in itertools.islice(rows, 256))
    started = time.perf_counter()
    other_rows = sum(1 for _ in rows)
    return {
        "seconds_to_first_chunk": round(started - start, 2),
        "molecules_per_second": round(other_rows / (time.perf_counter() - started)),
        "molecules": first_rows + other_rows,
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all methods on all sets, and `featurize_library` with 0, 1 and 2 processes."""
    start = time.perf_counter()
    reader = compiled_reader()
    report: dict[str, Any] = {
        "benchmark": "featurize",
        "compiled_reader": reader is not None,
        "seconds_to_prepare_reader": round(time.perf_counter() - start, 2),
        "rounds": arguments.rounds,
        **environment_info("rdkit", "numba", "torch-geometric"),
        "sets": {},
        "pool": {},
    }
    gc.freeze()  # Imported modules never become garbage; collections need not traverse them.
    with QuietLog():  # RDKit's warnings would slow its parser down.
        for name, file in MOLECULE_FILES.items():
            path = arguments.data / file
            smiles = list(itertools.islice(read_smiles(path), arguments.molecules))
            report["sets"][name] = measure(smiles, arguments.rounds, arguments.pyg)
    smiles = list(
        itertools.islice(read_smiles(arguments.data / MOLECULE_FILES["zinc250k"]), 20_000)
    )
    for workers, canonical in itertools.product((0, 1, 2), (False, True)):
        name = f"{workers}_workers_{'canonical' if canonical else 'as_written'}"
        report["pool"][name] = measure_pool(smiles, workers, canonical)
    return report


def print_table(report: dict[str, Any]) -> None:
    """Print the figures as text tables."""
    for name, figures_by_method in report["sets"].items():
        print(f"\n{name:<28}{'molecules':>10}{'us each':>9}{'per s':>9}{'x parse':>8}")
        for method, figures in figures_by_method.items():
            print(
                f"{method:<28}{figures['molecules']:>10}{figures['us_per_molecule']:>9}"
                f"{figures['molecules_per_second_per_core']:>9}"
                f"{figures['ratio_to_rdkit_parse']:>8.2f}"
            )
    print(f"\n{'pool, wall clock':<28}{'molecules':>10}{'first, s':>9}{'per s':>9}")
    for name, figures in report["pool"].items():
        print(
            f"{name:<28}{figures['molecules']:>10}{figures['seconds_to_first_chunk']:>9}"
            f"{figures['molecules_per_second']:>9}"
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=DATA, help="Folder of the staged data; default: %(default)s."
    )
    parser.add_argument(
        "--molecules",
        type=int,
        default=20_000,
        help="Largest number of molecules of each set; default: %(default)s.",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="Passes over all molecules; default: %(default)s."
    )
    parser.add_argument(
        "--pyg",
        type=int,
        default=2_000,
        help="Number of molecules of each set that PyG reads; default: %(default)s.",
    )
    add_json_option(parser)
    parser.add_argument(
        "--check-all",
        action="store_true",
        help="Compare the compiled reader with the Python loops instead of measuring.",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="Processes of --check-all; default: %(default)s."
    )
    arguments = parser.parse_args()
    if arguments.check_all:
        sys.exit(1 if check_all(arguments.data, arguments.workers) else 0)
    report = run(arguments)
    print_table(report)
    write_json(report, arguments.json)


if __name__ == "__main__":
    main()
