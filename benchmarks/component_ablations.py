"""Ablations of what the shipped model adds to MolTC, measured on molecules that training never saw.

    python benchmarks/component_ablations.py --out components.jsonl [--variant full no-dropout ...]
        [--seeds 0 1] [--pretrain-steps 1500] [--finetune-steps 2500]

Each variant is trained by the recipes of the shipped model with fewer steps and one change, while a
fifth of all molecules is held out, and is scored on the test splits and on pairs with one and with
two of the held-out molecules. A seed draws the held-out molecules, the weights and the batches. The
costs are those of the variant's encoder for a molecule, from its SMILES on, and of its language
model for a pair, on one thread. To resume, run the command again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ablation_runs import AblationRun, run_ablations

from moltc_vllm.chem import featurize_library
from moltc_vllm.data.splits import TEST
from moltc_vllm.data.unseen import BOTH_UNSEEN, ONE_UNSEEN, read_unseen
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.checkpoint import load_model
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.train.card import measure_rows
from moltc_vllm.train.loop import train
from moltc_vllm.train.mini import STAGES
from moltc_vllm.train.progress import PrintedProgress
from moltc_vllm.train.recipe import load_recipe

DATASETS = {
    "combisolv_exp": "rmse",
    "solubility": "rmse",
    "deep4chem_absorption": "rmse",
    "deep4chem_emission": "rmse",
    "zhangddi": "auroc",
    "chchminer": "auroc",
    "drugbank86": "accuracy",
}
"""Metric of each data set in the table."""

GRAPH = "model.graph_encoder_config"
VARIANTS: dict[str, list[str]] = {
    "full": [],
    "no-dropout": ["dropout=0", f"{GRAPH}.environment_dropout=0", f"{GRAPH}.molecule_dropout=0"],
    "hashed-environments": [f"{GRAPH}.environment_rows=0", f"{GRAPH}.environment_buckets=8192"],
    "no-environments": [f"{GRAPH}.environment_rows=0"],
    "no-known-molecules": [f"{GRAPH}.molecule_rows=0"],
    "published-atoms": [f"{GRAPH}.atom_features=published"],
    "no-descriptors": [f"{GRAPH}.descriptors=false"],
    "no-teacher": ["molecules.targets=[descriptors, fingerprint]"],
    "no-molecule-targets": ["molecules=null"],
    "as-drawn": ["model.standardization=as-drawn"],
    "given-order": ["model.symmetric_order=given"],
}
"""Changes of the recipes, as for ``moltc train --set``, by variant."""

FRACTION = 0.2
_COST_MOLECULES = 2000
_COST_PAIRS = 2048
_PROMPT_TOKENS = 1  # the question of a task is one token beside the molecules'


def train_variant(name: str, seed: int, folder: Path, arguments: argparse.Namespace) -> Path:
    """Train a variant, or resume its training, and return its checkpoint."""
    checkpoint: Path | None = None
    steps = (arguments.pretrain_steps, arguments.finetune_steps)
    for stage, max_steps in zip(STAGES, steps, strict=True):
        recipe = load_recipe(
            stage,
            [
                f"max_steps={max_steps}",
                f"warmup_steps={max_steps // 20}",
                f"seed={seed}",
                f"unseen={{fraction: {FRACTION}, seed: {seed}}}",
                "validate_every=0",
                *VARIANTS[name],
            ],
        )
        progress = PrintedProgress(f"{folder.name} {stage}", every=100)
        result = train(recipe, arguments.data, folder / stage, progress, checkpoint=checkpoint)
        if result.checkpoint is None:  # interrupted by a signal
            raise SystemExit(130)
        checkpoint = result.checkpoint
    assert checkpoint is not None
    return checkpoint


def score(checkpoint: Path, seed: int, data: Path) -> dict[str, dict[str, float]]:
    """Compute the metric of each data set on each part, by part and data set."""
    unseen, splits = read_unseen(data, seed, FRACTION)
    rows = {
        "test": {name: unseen.drop_excluded(splits[name].rows[TEST]) for name in DATASETS},
        **{
            part: {name: unseen.rows[name][part] for name in DATASETS}
            for part in (ONE_UNSEEN, BOTH_UNSEEN)
        },
    }
    return {
        part: {
            name: round(metrics[DATASETS[name]], 4)
            for name, metrics in measure_rows(checkpoint, rows_by_name).items()
            if DATASETS[name] in metrics
        }
        for part, rows_by_name in rows.items()
    }


@torch.inference_mode()
def costs(checkpoint: Path, smiles: Sequence[str]) -> dict[str, float]:
    """Measure microseconds per molecule and per pair, on one thread.

    Args:
        checkpoint: Checkpoint folder.
        smiles: Molecules, read from SMILES once.
    """
    model = load_model(checkpoint)
    config = model.config
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        rows = featurize_library(
            smiles,
            workers=0,
            standardization=config.standardization,
            descriptors=config.graph_encoder_config.descriptors,
        )
        packed = [row[1] for row in rows if isinstance(row, tuple)]
        featurized = time.perf_counter()
        for begin in range(0, len(packed), 256):
            model.molecule_encoder(BatchMolGraph.from_molecules(packed[begin : begin + 256]))
        encoded = time.perf_counter()
        pairs = _language_model_seconds(model)
    finally:
        torch.set_num_threads(threads)
    return {
        "featurize_us": round((featurized - start) / len(packed) * 1e6, 1),
        "encode_us": round((encoded - featurized) / len(packed) * 1e6, 1),
        "pair_us": round(pairs * 1e6, 1),
    }


def _language_model_seconds(model: MoltcModel) -> float:
    """Return the seconds of one pair in the language model."""
    tokens = 2 * model.config.qformer_config.num_queries + _PROMPT_TOKENS
    embeds = torch.randn(512, tokens, model.get_input_embeddings().weight.shape[1])
    language: Any = model.language_model
    decoder = getattr(language, language.base_model_prefix)
    start = time.perf_counter()
    for _ in range(_COST_PAIRS // len(embeds)):
        decoder(inputs_embeds=embeds, use_cache=False)
    return (time.perf_counter() - start) / _COST_PAIRS


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Format results as a Markdown table with means over seeds: test / one / both unseen."""
    lines = [
        "| | "
        + " | ".join(f"{name} {metric}" for name, metric in DATASETS.items())
        + " | µs per new molecule | µs per pair |",
        "|---" * (len(DATASETS) + 3) + "|",
    ]
    for variant in VARIANTS:
        mine = [result for result in results if result["variant"] == variant]
        if not mine:
            continue
        cells = [
            " / ".join(
                f"{statistics.mean(values):.3f}" if values else "-"
                for part in ("test", ONE_UNSEEN, BOTH_UNSEEN)
                for values in [[r["scores"][part][name] for r in mine if name in r["scores"][part]]]
            )
            for name in DATASETS
        ]
        molecule = statistics.median(
            r["costs"]["featurize_us"] + r["costs"]["encode_us"] for r in mine
        )
        pair = statistics.median(r["costs"]["pair_us"] for r in mine)
        lines.append(
            f"| {variant} ({len(mine)} seeds) | "
            + " | ".join(cells)
            + f" | {molecule:.0f} | {pair:.0f} |"
        )
    return "\n".join(lines)


def measure_run(run: AblationRun) -> dict[str, Any]:
    """Train a variant, score it and measure its costs."""
    data: Path = run.options.data
    start = time.monotonic()
    checkpoint = train_variant(run.variant, run.seed, run.folder, run.options)
    seconds = round(time.monotonic() - start)
    _, splits = read_unseen(data, run.seed, FRACTION)
    rows = splits["drugbank86"].rows[TEST]
    molecules = list(dict.fromkeys(text for row in rows for text in row.molecules))
    return {
        "scores": score(checkpoint, run.seed, data),
        "costs": costs(checkpoint, molecules[:_COST_MOLECULES]),
        "seconds": seconds,
    }


if __name__ == "__main__":
    summary = (__doc__ or "").partition("\n")[0]
    run_ablations(summary, "runs/components", VARIANTS, (1500, 2500), measure_run, markdown)
