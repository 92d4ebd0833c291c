"""How fast is the molecule encoder on one core, beside the published way and the bare products?

Published sizes (GIN 5 x 300, Q-Former 12 x 768, 8 queries), random weights, real molecules in
random order, float32, one thread, CPU time. All ways of a part run in turn, in an order that turns;
a ratio is taken within its round, figures are medians over the rounds, and where results differ
there are none. All of it takes a quarter of an hour; `--batches`, `--parts` and `--sets` choose.

* PyG: the published message passing; padded: the published Q-Former;
* floor: the bare matrix products of the same layers, in passes that fit the cache. Ours can be
  below it where it computes less than the same layers: equal atoms once.

    python benchmarks/encoder.py --json
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import DATA, SETS, add_json_option, described, read_smiles, write_json
from pyg_reference import (
    PaddedQFormer,
    PaddedTokens,
    PublishedBatch,
    PublishedEncoder,
    PublishedGIN,
)
from torch import Tensor

from moltc_vllm.chem import MoleculeError, MolGraph, featurize, parse_smiles
from moltc_vllm.models import BatchMolGraph, MoleculeEncoder, MoltcConfig
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from moltc_vllm.models.qformer import QFormer

ROWS, MOLECULES = 512, 128  # passes of the floors
TOLERANCE = 1e-5
SECONDS = 20.0  # after this no further round of a part begins

Way = Callable[[], Tensor]


def gin_floor(encoder: MoleculeEncoder, atoms: int) -> Way:
    """The products of all layers over all atoms."""
    layers = [layer.linear for layer in encoder.graph_encoder.layers]
    x = torch.randn(atoms, encoder.graph_encoder.norm.normalized_shape[0])

    def run() -> Tensor:
        out = torch.empty_like(x)
        for begin in range(0, atoms, ROWS):
            h = x[begin : begin + ROWS]
            for up, down in layers:
                h = down(up(h))
            out[begin : begin + ROWS] = h
        return out

    return run


def qformer_floor(qformer: QFormer, tokens: Tensor, molecules: int) -> Way:
    """The products of all layers; cross-attention reads tokens of the mean length, absorbed."""

    def one_pass(count: int, own: Tensor) -> Tensor:
        width = qformer.queries.shape[1]
        h = torch.randn(count * qformer.queries.shape[0], width)
        for layer in qformer.layers:
            a = layer.self_attention
            for linear in (a.query, a.key, a.value, a.output):
                h = linear(h)
            if layer.cross_attention is not None:
                h = _absorbed_products(layer.cross_attention, h, own)
            h = layer.down(layer.up(h))
        return h

    def run() -> Tensor:
        length = tokens.shape[0] // molecules
        each = tokens[: length * molecules].view(molecules, length, -1)
        parts = [each[begin : begin + MOLECULES] for begin in range(0, molecules, MOLECULES)]
        return torch.cat([one_pass(len(part), part) for part in parts])

    return run


def _absorbed_products(cross: Any, h: Tensor, own: Tensor) -> Tensor:
    heads, rows = cross.heads, h.shape[0]
    key, value = (part.weight.view(heads, -1, own.shape[2]) for part in (cross.key, cross.value))
    by_head = cross.query(h).view(rows, heads, -1).transpose(0, 1)
    q = torch.bmm(by_head, key).transpose(0, 1).reshape(own.shape[0], -1, own.shape[2])
    context = torch.bmm(torch.bmm(q, own.transpose(1, 2)), own).view(rows, heads, -1)
    out = torch.bmm(context.transpose(0, 1), value.transpose(1, 2))
    return cross.output(out.transpose(0, 1).reshape(rows, -1))


def parts_of(
    encoder: MoleculeEncoder, graphs: list[MolGraph]
) -> Iterator[tuple[str, dict[str, Way]]]:
    """What is measured on these molecules: name of the part, and the ways of computing it."""
    batch = BatchMolGraph.from_graphs(graphs)
    data = PublishedBatch.of(batch)
    published, floor = PublishedGIN(encoder.graph_encoder), gin_floor(encoder, len(batch.atoms))
    yield (
        "gin",
        {
            "ours": lambda: encoder.graph_encoder.atom_states(batch),
            "published": lambda: published(data),
            "floor": floor,
        },
    )
    tokens, offsets = encoder.graph_encoder(batch)
    padded = PaddedQFormer(encoder.qformer)
    products = qformer_floor(encoder.qformer, tokens, len(graphs))
    yield (
        "qformer",
        {
            "ours": lambda: encoder.qformer(tokens, offsets),
            "published": lambda: padded(PaddedTokens.of(tokens, offsets)),
            "floor": products,
        },
    )
    whole = PublishedEncoder(encoder)
    yield (
        "encoder",
        {
            "ours": lambda: encoder(batch),
            "published": lambda: whole(data, batch.molecule_offsets),
            "floor": lambda: torch.cat([floor().flatten(), products().flatten()]),
        },
    )


def measure(ways: dict[str, Way], most_rounds: int) -> dict[str, float]:
    """Median CPU seconds of every way, and the ratios.

    Raises:
        AssertionError: If ours differs from the published way; then no time is reported.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Tensor] = {}
    begin = time.perf_counter()
    for order in itertools.islice(itertools.cycle(itertools.permutations(ways)), most_rounds):
        for name in order:
            start = time.process_time()
            results[name] = ways[name]()
            times[name].append(time.process_time() - start)
        if time.perf_counter() - begin > SECONDS:
            break
    error = float((results["ours"] - results["published"]).norm() / results["published"].norm())
    assert error < TOLERANCE, f"results differ: relative RMS {error:.1e}"

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    return {
        "rounds": len(times["ours"]),
        **{f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()},
        "ours_over_floor": ratio("ours", "floor"),
        "published_over_ours": ratio("published", "ours"),
        "relative_rms": error,
    }


def load_graphs(path: Path, count: int, seed: int) -> list[MolGraph]:
    """Molecules of a file in random order; those that cannot be read are left out."""
    smiles = list(read_smiles(path))
    random.Random(seed).shuffle(smiles)
    graphs: list[MolGraph] = []
    for one in smiles:
        if len(graphs) == count:
            break
        try:
            graphs.append(featurize(parse_smiles(one)))
        except MoleculeError:
            continue
    return graphs


def random_encoder() -> MoleculeEncoder:
    """Published sizes, random weights, batch-norm statistics that do something."""
    torch.manual_seed(0)
    encoder = MoleculeEncoder(MoltcConfig()).eval()
    initialize_molecule_weights(encoder)
    for layer in encoder.graph_encoder.layers:
        layer.norm.running_mean.normal_(std=0.1)
        layer.norm.running_var.uniform_(0.5, 2.0)
    return encoder


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All parts of all batches."""
    torch.set_num_threads(1)
    encoder = random_encoder()
    rows = []
    for name in arguments.sets:
        graphs = load_graphs(DATA / SETS[name], max(arguments.batches), arguments.seed)
        for size in arguments.batches:
            chosen = graphs[:size]
            for part, ways in parts_of(encoder, chosen):
                if part not in arguments.parts:
                    continue
                row = {
                    "set": name,
                    "molecules": len(chosen),
                    "atoms": sum(graph.num_atoms for graph in chosen),
                    "largest": max(graph.num_atoms for graph in chosen),
                    "part": part,
                    **measure(ways, arguments.rounds),
                }
                rows.append(row)
                report(row, header=len(rows) == 1)
    return {**described("torch", "torch-geometric", "rdkit"), "rows": rows}


def report(row: dict[str, Any], header: bool) -> None:
    """Print one line of the table."""
    if header:
        print(
            f"{'set':<10}{'part':<9}{'molecules':>9}{'atoms':>8}{'largest':>8}{'rounds':>7}"
            f"{'ours ms':>11}{'published':>11}{'floor':>11}{'x floor':>9}{'x faster':>9}"
        )
    print(
        f"{row['set']:<10}{row['part']:<9}{row['molecules']:>9}{row['atoms']:>8}"
        f"{row['largest']:>8}{row['rounds']:>7}{row['ours_ms']:>11.2f}{row['published_ms']:>11.2f}"
        f"{row['floor_ms']:>11.2f}{row['ours_over_floor']:>9.2f}{row['published_over_ours']:>9.2f}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 128, 256, 2048])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parts = ["gin", "qformer", "encoder"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=50, help="at most, as time allows")
    parser.add_argument("--seed", type=int, default=0, help="order of the molecules")
    add_json_option(parser)
    arguments = parser.parse_args()
    write_json(run(arguments), arguments.json)


if __name__ == "__main__":
    main()
