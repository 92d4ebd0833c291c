"""Compare the molecule encoder on one core with the published code and with its matrix products.

Published sizes (GIN 5 x 300, Q-Former 12 x 768, 8 queries), random weights, real molecules in
random order, float32, one thread, CPU time. All methods of a part run in each round, in a rotating
order. A ratio compares times of the same round, and figures are medians over the rounds; the run
ends without figures if results differ. Everything takes a quarter of an hour; `--batches`,
`--parts` and `--sets` select less.

* ``published``: PyG's message passing and a padded Q-Former, as in the published code;
* ``floor``: the matrix products of the same layers alone, in passes that fit the cache. ``ours``
  can be faster than the floor where it computes equal atoms once.

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
from common import DATA, MOLECULE_FILES, add_json_option, environment_info, read_smiles, write_json
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

ROWS_PER_PASS, MOLECULES_PER_PASS = 512, 128  # Sizes with which the floors' data fit the cache.
TOLERANCE = 1e-5
MAX_SECONDS = 20.0  # No further round of a part starts after this time.

Method = Callable[[], Tensor]


def gin_floor(encoder: MoleculeEncoder, atoms: int) -> Method:
    """Return the matrix products of all GIN layers over all atoms."""
    layers = [layer.linear for layer in encoder.graph_encoder.layers]
    x = torch.randn(atoms, encoder.graph_encoder.norm.normalized_shape[0])

    def run() -> Tensor:
        out = torch.empty_like(x)
        for begin in range(0, atoms, ROWS_PER_PASS):
            h = x[begin : begin + ROWS_PER_PASS]
            for up, down in layers:
                h = down(up(h))
            out[begin : begin + ROWS_PER_PASS] = h
        return out

    return run


def qformer_floor(qformer: QFormer, tokens: Tensor, molecules: int) -> Method:
    """Return the matrix products of all Q-Former layers.

    Cross-attention is absorbed, and all molecules have the mean number of tokens.
    """

    def one_pass(count: int, batch_tokens: Tensor) -> Tensor:
        width = qformer.queries.shape[1]
        h = torch.randn(count * qformer.queries.shape[0], width)
        for layer in qformer.layers:
            attention = layer.self_attention
            for linear in (attention.query, attention.key, attention.value, attention.output):
                h = linear(h)
            if layer.cross_attention is not None:
                h = _absorbed_products(layer.cross_attention, h, batch_tokens)
            h = layer.down(layer.up(h))
        return h

    def run() -> Tensor:
        length = tokens.shape[0] // molecules
        by_molecule = tokens[: length * molecules].view(molecules, length, -1)
        passes = by_molecule.split(MOLECULES_PER_PASS)
        return torch.cat([one_pass(len(part), part) for part in passes])

    return run


def _absorbed_products(cross: Any, h: Tensor, tokens: Tensor) -> Tensor:
    heads, rows = cross.heads, h.shape[0]
    key, value = (part.weight.view(heads, -1, tokens.shape[2]) for part in (cross.key, cross.value))
    by_head = cross.query(h).view(rows, heads, -1).transpose(0, 1)
    q = torch.bmm(by_head, key).transpose(0, 1).reshape(tokens.shape[0], -1, tokens.shape[2])
    context = torch.bmm(torch.bmm(q, tokens.transpose(1, 2)), tokens).view(rows, heads, -1)
    out = torch.bmm(context.transpose(0, 1), value.transpose(1, 2))
    return cross.output(out.transpose(0, 1).reshape(rows, -1))


def parts_of(
    encoder: MoleculeEncoder, graphs: list[MolGraph]
) -> Iterator[tuple[str, dict[str, Method]]]:
    """Yield the name of each part of the encoder, and the methods that compute it for molecules."""
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
    full_encoder = PublishedEncoder(encoder)
    yield (
        "encoder",
        {
            "ours": lambda: encoder(batch),
            "published": lambda: full_encoder(data, batch.molecule_offsets),
            "floor": lambda: torch.cat([floor().flatten(), products().flatten()]),
        },
    )


def measure(methods: dict[str, Method], max_rounds: int) -> dict[str, float]:
    """Measure the methods of a part and return median times and ratios.

    Args:
        methods: Methods by name: ``ours``, ``published`` and ``floor``.
        max_rounds: Largest number of rounds.

    Raises:
        AssertionError: If ours and the published method differ; then no time is reported.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    results: dict[str, Tensor] = {}
    begin = time.perf_counter()
    orders = itertools.cycle(itertools.permutations(methods))
    for order in itertools.islice(orders, max_rounds):
        for name in order:
            start = time.process_time()
            results[name] = methods[name]()
            times[name].append(time.process_time() - start)
        if time.perf_counter() - begin > MAX_SECONDS:
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
    """Featurize molecules of a file in random order, leaving out those that cannot be read."""
    smiles = list(read_smiles(path))
    random.Random(seed).shuffle(smiles)
    graphs: list[MolGraph] = []
    for text in smiles:
        if len(graphs) == count:
            break
        try:
            graphs.append(featurize(parse_smiles(text)))
        except MoleculeError:
            continue
    return graphs


def random_encoder() -> MoleculeEncoder:
    """Create an encoder of the published sizes with random weights and batch-norm statistics."""
    torch.manual_seed(0)
    encoder = MoleculeEncoder(MoltcConfig()).eval()
    initialize_molecule_weights(encoder)
    for layer in encoder.graph_encoder.layers:
        layer.norm.running_mean.normal_(std=0.1)
        layer.norm.running_var.uniform_(0.5, 2.0)
    return encoder


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all parts of all batches."""
    torch.set_num_threads(1)
    encoder = random_encoder()
    rows = []
    for name in arguments.sets:
        graphs = load_graphs(DATA / MOLECULE_FILES[name], max(arguments.batches), arguments.seed)
        for size in arguments.batches:
            batch = graphs[:size]
            for part, methods in parts_of(encoder, batch):
                if part not in arguments.parts:
                    continue
                row = {
                    "set": name,
                    "molecules": len(batch),
                    "atoms": sum(graph.num_atoms for graph in batch),
                    "largest": max(graph.num_atoms for graph in batch),
                    "part": part,
                    **measure(methods, arguments.rounds),
                }
                rows.append(row)
                print_row(row, header=len(rows) == 1)
    return {**environment_info("torch", "torch-geometric", "rdkit"), "rows": rows}


def print_row(row: dict[str, Any], header: bool) -> None:
    """Print one row of the table, after the header if it is the first."""
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
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=[1, 16, 128, 256, 2048],
        help="Numbers of molecules of a batch; default: %(default)s.",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=MOLECULE_FILES,
        default=list(MOLECULE_FILES),
        help="Sources of molecules; default: all.",
    )
    parts = ["gin", "qformer", "encoder"]
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=parts,
        default=parts,
        help="Parts of the encoder to measure; default: all.",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=50,
        help="Largest number of rounds of a part; fewer if it takes longer than 20 s.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the molecules' random order.")
    add_json_option(parser)
    arguments = parser.parse_args()
    write_json(run(arguments), arguments.json)


if __name__ == "__main__":
    main()
