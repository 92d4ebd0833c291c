"""How far is SMILES to graph from RDKit's bare parse?

One process, one core, CPU time. Every chunk of molecules is read in every way, in an order that
turns, so that all ways see the same machine; a round is all chunks, figures are medians over the
rounds, and a ratio is taken within its round. All our ways end with the bonds in CSR form.

    python benchmarks/featurize.py --json featurize.json
    python benchmarks/featurize.py --check-all

The second compares every staged molecule, also written in two other ways, with the plain loops,
and its canonical key with the plain way's; it ends with status 1 if anything differs.
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

from common import DATA, SETS, add_json_option, described, read_smiles, write_json
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

CHUNK = 250

Way = Callable[[list[str]], object]


def bare(chunk: list[str]) -> object:
    """RDKit's parse alone, nothing kept: the floor."""
    for smiles in chunk:
        Chem.MolFromSmiles(smiles)
    return None


def one_by_one(chunk: list[str]) -> object:
    """As one molecule is read: checked, selectively sanitised, packed by compiled code."""
    return [
        featurize_packed(parse_for_graph(clean_smiles(smiles, DEFAULT_LIMITS), DEFAULT_LIMITS))
        for smiles in chunk
    ]


def library(chunk: list[str]) -> object:
    """As a library's block is read, taken apart into rows."""
    return list(read_chunk(chunk, DEFAULT_LIMITS, canonical=False).rows())


def whole_sanitising(chunk: list[str]) -> object:
    """One by one, with all of RDKit's sanitisation."""
    return [featurize_packed(parse_smiles(smiles)) for smiles in chunk]


def plain_loops(chunk: list[str]) -> object:
    """Loops over atoms and bonds in Python, CSR by numpy."""
    return [pack(featurize_loops(parse_smiles(smiles))) for smiles in chunk]


def serving(chunk: list[str]) -> object:
    """What a server does with a molecule that it has not seen: canonical key, then its graph."""
    molecule._key.cache_clear()
    molecule._canonicalise.cache_clear()
    return [packed_of(canonical_key(smiles)) for smiles in chunk]


def two_parses_and_writes(chunk: list[str]) -> object:
    """The floor of ``serving``: bare RDKit, read, written, read again, written again."""
    return [
        Chem.MolToSmiles(Chem.MolFromSmiles(Chem.MolToSmiles(Chem.MolFromSmiles(smiles))))
        for smiles in chunk
    ]


def ways() -> dict[str, Way]:
    """All ways that are installed."""
    own = (bare, one_by_one, library, whole_sanitising, plain_loops, serving)
    found: dict[str, Way] = {way.__name__: way for way in (*own, two_parses_and_writes)}
    try:
        from torch_geometric.utils import from_smiles
    except ImportError:
        return found
    return {**found, "pyg_from_smiles": lambda chunk: [from_smiles(smiles) for smiles in chunk]}


def measure(smiles: list[str], rounds: int, pyg: int) -> dict[str, Any]:
    """CPU seconds of every way in every round; PyG on the first ``pyg`` molecules only."""
    chunks = [smiles[i : i + CHUNK] for i in range(0, len(smiles), CHUNK)]
    every = list(ways().items())
    spent: dict[str, list[float]] = {name: [] for name, _ in every}
    bare_of_subset = []
    for _, way in every:
        way(chunks[0])
    for number in range(rounds):
        seconds: Counter[str] = Counter()
        subset = 0.0
        for place, chunk in enumerate(chunks):
            turn = (place + number) % len(every)
            for name, way in every[turn:] + every[:turn]:
                if name.startswith("pyg") and place * CHUNK >= pyg:
                    continue
                begin = time.process_time()
                result = way(chunk)
                took = time.process_time() - begin
                del result
                seconds[name] += took
                subset += took if name == "bare" and place * CHUNK < pyg else 0.0
        for name in spent:
            spent[name].append(seconds[name])
        bare_of_subset.append(subset)
    figures = {}
    for name, seconds_each in spent.items():
        is_subset = name.startswith("pyg")
        count = min(len(smiles), -(-pyg // CHUNK) * CHUNK) if is_subset else len(smiles)
        floor = bare_of_subset if is_subset else spent["bare"]
        ratios = [mine / its for mine, its in zip(seconds_each, floor, strict=True)]
        figures[name] = {
            "molecules": count,
            "molecules_per_second_per_core": round(count / statistics.median(seconds_each)),
            "us_per_molecule": round(statistics.median(seconds_each) / count * 1e6, 1),
            "ratio_to_bare": round(statistics.median(ratios), 3),
            "ratio_to_bare_range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return figures


def pool(smiles: list[str], workers: int, canonical: bool) -> dict[str, float]:
    """Wall-clock throughput of `featurize_library` after its processes have started."""
    begin = time.perf_counter()
    rows = featurize_library(iter(smiles), workers=workers, canonical=canonical)
    head = sum(1 for _ in itertools.islice(rows, 256))
    started = time.perf_counter()
    rest = sum(1 for _ in rows)
    return {
        "seconds_to_first_block": round(started - begin, 2),
        "molecules_per_second": round(rest / (time.perf_counter() - started)),
        "molecules": head + rest,
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    begin = time.perf_counter()
    reader = compiled_reader()
    report: dict[str, Any] = {
        "benchmark": "featurize",
        "compiled_reader": reader is not None,
        "seconds_to_prepare_reader": round(time.perf_counter() - begin, 2),
        "rounds": arguments.rounds,
        **described("rdkit", "numba", "torch-geometric"),
        "sets": {},
        "pool": {},
    }
    gc.freeze()  # what the imports made is not to be walked through again and again
    with QuietLog():  # so that the bare parse does not write its warnings either
        for name, file in SETS.items():
            path = arguments.data / file
            smiles = list(itertools.islice(read_smiles(path), arguments.molecules))
            report["sets"][name] = measure(smiles, arguments.rounds, arguments.pyg)
    smiles = list(itertools.islice(read_smiles(arguments.data / SETS["zinc250k"]), 20_000))
    for workers, canonical in itertools.product((0, 1, 2), (False, True)):
        kind = "canonical" if canonical else "as_written"
        report["pool"][f"{workers}_workers_{kind}"] = pool(smiles, workers, canonical)
    return report


def print_table(report: dict[str, Any]) -> None:
    """Print the figures for people."""
    for name, ways_of_set in report["sets"].items():
        print(f"\n{name:<28}{'molecules':>10}{'us each':>9}{'per s':>9}{'x bare':>8}")
        for way, figures in ways_of_set.items():
            print(
                f"{way:<28}{figures['molecules']:>10}{figures['us_per_molecule']:>9}"
                f"{figures['molecules_per_second_per_core']:>9}{figures['ratio_to_bare']:>8.2f}"
            )
    print(f"\n{'pool, wall clock':<28}{'molecules':>10}{'first, s':>9}{'per s':>9}")
    for name, figures in report["pool"].items():
        print(
            f"{name:<28}{figures['molecules']:>10}{figures['seconds_to_first_block']:>9}"
            f"{figures['molecules_per_second']:>9}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data")
    parser.add_argument("--molecules", type=int, default=20_000, help="at most, of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pyg", type=int, default=2_000, help="molecules that PyG reads")
    add_json_option(parser)
    parser.add_argument("--check-all", action="store_true", help="compare instead of measuring")
    parser.add_argument("--workers", type=int, default=2, help="processes of --check-all")
    arguments = parser.parse_args()
    if arguments.check_all:
        sys.exit(1 if check_all(arguments.data, arguments.workers) else 0)
    report = run(arguments)
    print_table(report)
    write_json(report, arguments.json)


if __name__ == "__main__":
    main()
