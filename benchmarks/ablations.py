"""Ablations: the same short training with one component of the method left out.

    python benchmarks/ablations.py --out ablations.jsonl [--seeds 0 1] [--variant full lower ...]

Each variant is pretrained on computed solvation energies and on properties of library molecules,
fine-tuned on two small data sets, and scored on their test splits. All variants have the same steps
and seeds.

* `full`: all components: two levels of training, graphs only, projectors split per task and role.
* `upper`: no pretraining on properties of both molecules, which is the upper level here (8 of the
  104 pairs of a step); the computed energies remain.
* `lower`: numbers without their interval, and thus without its token, its smoothed targets and the
  loss of the expected value.
* `graph`: prompts with SMILES, and an encoder that sees only methane.
* `split`: one projector for both molecules and all tasks.

`stated` scores the number in the greedily generated text, without a grammar; an answer without a
number (`unread`) counts as the mean of the train split. `expected` scores the mean of the
distribution over intervals, if the variant has one. All variants are trained for minutes only and
are less accurate than the shipped model. To resume, run the command again: results that are already
in the file are not computed again.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ablation_runs import AblationRun, run_ablations

from moltc_vllm.data.dataset import Row
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.splits import TEST, TRAIN, read_splits
from moltc_vllm.models.presets import create_checkpoint
from moltc_vllm.models.prompt import Prompt
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.train.card import measure
from moltc_vllm.train.examples import BLIND_SMILES
from moltc_vllm.train.loop import train
from moltc_vllm.train.progress import PrintedProgress
from moltc_vllm.train.recipe import PROPERTIES, Recipe
from moltc_vllm.train.vocabulary import training_phrases

TEST_DATASETS = ("combisolv_exp", "solubility")
PRETRAIN_MIXTURE = {
    "combisolv_qm": {"batch_size": 96, "block": (48, 48)},
    PROPERTIES: {"batch_size": 8},
}
FINETUNE_MIXTURE = {
    "combisolv_exp": {"batch_size": 48, "block": (64, 0)},
    "solubility": {"batch_size": 24},
}
SHOWN_METRICS = ("stated_rmse", "stated_mae", "expected_rmse")

# With SMILES of at most this length, two of them and a question fit into 512 positions.
_MAX_SMILES_CHARACTERS = 180
_BATCH_SIZE = 64
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?=;?$)")


class Variant(NamedTuple):
    """Settings of a variant; the defaults are those of the full method.

    Attributes:
        ablate: Components to leave out of the training, see `Recipe`.
        style: Prompt style of the checkpoint.
        properties: Whether to pretrain on properties.
        projectors: Sharing of the projectors.
    """

    ablate: tuple[str, ...] = ()
    style: str = "moltc-graph"
    properties: bool = True
    projectors: str = "task_role"


VARIANTS = {
    "full": Variant(),
    "upper": Variant(properties=False),
    "lower": Variant(ablate=("lower",)),
    "graph": Variant(ablate=("graph",), style="moltc"),
    "split": Variant(projectors="shared"),
}


def recipes(variant: Variant, seed: int, arguments: argparse.Namespace) -> list[Recipe]:
    """Return the recipes of both stages."""
    shared = {"ablate": variant.ablate, "seed": seed, "validate_every": 0, "save_every": 200}
    pretrain_mixture = {
        name: component
        for name, component in PRETRAIN_MIXTURE.items()
        if variant.properties or name != PROPERTIES
    }
    pretrain = {
        **shared,
        "name": "pretrain",
        "stage": "pretrain",
        "mixture": pretrain_mixture,
        "max_steps": arguments.pretrain_steps,
        "warmup_steps": arguments.pretrain_steps // 8,
        "learning_rate": 1.5e-3,
        "ema_decay": 0.0,
    }
    finetune = {
        **shared,
        "name": "finetune",
        "stage": "finetune",
        "projectors": variant.projectors,
        "mixture": FINETUNE_MIXTURE,
        "max_steps": arguments.finetune_steps,
        "warmup_steps": arguments.finetune_steps // 16,
        "learning_rate": 1e-3,
        "ema_decay": 0.98,
    }
    return [Recipe.model_validate(settings) for settings in (pretrain, finetune)]


def train_variant(variant: Variant, seed: int, folder: Path, arguments: argparse.Namespace) -> Path:
    """Train a variant, or resume its training, and return its checkpoint.

    Args:
        variant: Variant to train.
        seed: Seed of the weights and the training.
        folder: Folder for the runs of both stages.
        arguments: Options of the command.
    """
    checkpoint = folder / "new"
    if not checkpoint.is_dir():
        create_checkpoint(
            "mini",
            checkpoint,
            seed=seed,
            phrases=training_phrases(),
            tasks=["solvation", "pair_properties"],
            config_overrides={
                "prompt_style": variant.style,
                "max_smiles_characters": _MAX_SMILES_CHARACTERS,
            },
        )
    for recipe in recipes(variant, seed, arguments):
        progress = PrintedProgress(f"{folder.name} {recipe.name}", every=100)
        run = folder / recipe.name
        result = train(recipe, arguments.data, run, progress, checkpoint=checkpoint)
        if result.checkpoint is None:  # interrupted by a signal
            raise SystemExit(130)
        checkpoint = result.checkpoint
    return checkpoint


def generated_numbers(
    checkpoint: Path, name: str, rows: Sequence[Row], *, blind: bool
) -> list[float | None]:
    """Generate answers without a grammar and read the numbers in their texts.

    Args:
        checkpoint: Checkpoint folder.
        name: Name of the data set.
        rows: Rows to answer.
        blind: Whether the encoder gets methane instead of the molecules.

    Returns:
        Number in each text; ``None`` for a text without a number.
    """
    engine = TorchEngine(checkpoint, constrained=False)
    task = get_task(DATASETS[name].task)
    numbers: list[float | None] = []
    for start in range(0, len(rows), _BATCH_SIZE):
        prompts = []
        for row in rows[start : start + _BATCH_SIZE]:
            text, order = engine.style.compose(task, row.molecules)
            molecules = [BLIND_SMILES if blind else row.molecules[role] for role in order]
            prompts.append(Prompt(text, molecules, task.name))
        for generation in engine.generate(task, prompts):
            match = _NUMBER.search(engine.text(generation.token_ids).strip())
            numbers.append(float(match[0]) if match else None)
    return numbers


def score_variant(checkpoint: Path, variant: Variant, data: Path) -> dict[str, dict[str, float]]:
    """Return the errors on the test splits, by data set.

    Args:
        checkpoint: Checkpoint folder of the variant.
        variant: Variant that was trained.
        data: Folder of the data files.
    """
    blind = "graph" in variant.ablate
    scores: dict[str, dict[str, float]] = {}
    for name, splits in read_splits(TEST_DATASETS, data).items():
        # All variants get the rows whose SMILES fit into the prompts of the `graph` variant.
        rows = [
            row
            for row in splits.rows[TEST]
            if max(map(len, row.molecules)) <= _MAX_SMILES_CHARACTERS
        ]
        targets = np.array([float(row.target) for row in rows])
        train_mean = float(np.mean([float(row.target) for row in splits.rows[TRAIN]]))
        numbers = generated_numbers(checkpoint, name, rows, blind=blind)
        values = np.array([train_mean if number is None else number for number in numbers])
        errors = values - targets
        scores[name] = {
            "pairs": len(rows),
            "unread": sum(number is None for number in numbers),
            "stated_rmse": round(float(np.sqrt((errors**2).mean())), 4),
            "stated_mae": round(float(np.abs(errors).mean()), 4),
        }
    # `measure` needs the distribution over intervals and the real graphs.
    if not variant.ablate:
        for name, metrics in measure(checkpoint, data, TEST_DATASETS).items():
            scores[name]["expected_rmse"] = round(metrics["rmse"], 4)
    return scores


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Format results as a Markdown table, with the mean and the range over seeds."""
    columns = [(name, metric) for name in TEST_DATASETS for metric in SHOWN_METRICS]
    lines = ["| | " + " | ".join(f"{name} {metric}" for name, metric in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for variant in VARIANTS:
        scores = [result["scores"] for result in results if result["variant"] == variant]
        if scores:
            cells = [_cell(scores, name, metric) for name, metric in columns]
            lines.append(f"| {variant} ({len(scores)} seeds) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(scores: Sequence[dict[str, dict[str, float]]], name: str, metric: str) -> str:
    values = [score[name][metric] for score in scores if metric in score[name]]
    if not values:
        return "-"
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def measure_run(run: AblationRun) -> dict[str, Any]:
    """Train a variant and score it on the test splits."""
    variant = VARIANTS[run.variant]
    checkpoint = train_variant(variant, run.seed, run.folder, run.options)
    return {"scores": score_variant(checkpoint, variant, run.options.data)}


if __name__ == "__main__":
    summary = (__doc__ or "").partition("\n")[0]
    run_ablations(summary, "runs/ablations", VARIANTS, (400, 800), measure_run, markdown)
