"""What is each part of the method good for? The same small training with one part left out.

    python benchmarks/ablations.py --out ablations.jsonl [--seeds 0 1] [--variant full lower ...]

Each variant is pretrained on computed solvation energies and properties of library molecules, and
fine-tuned on two small data sets, with the same steps and seeds; then it answers their test parts.

* `full`: both levels, graphs alone, projectors split per task and role.
* `upper`: without what the upper level is here, pretraining on properties of both molecules (8 of
  104 pairs of a step); the computed energies stay.
* `lower`: a number is said without its interval. With the interval goes what is learned on it: a
  token of its own, softened targets, and the loss on its mean.
* `graph`: the prompt has SMILES, and the encoder sees methane only.
* `split`: one projector for both molecules and all tasks.

`stated` is the number in the greedily written text, without a grammar; an answer that has none
(`unread`) counts as the mean of the train part. `expected` is the mean of the distribution over
intervals, where there is one. All are trained for minutes: they are off by more than the shipped
model. Run again to go on; what is in the file is not computed again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy_table import read_results
from common import DATA, described

from moltc_vllm.data.dataset import Row
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.splits import TEST, TRAIN, read_parts
from moltc_vllm.models.presets import create_checkpoint
from moltc_vllm.models.prompt import Prompt
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.train.card import measure
from moltc_vllm.train.examples import BLIND
from moltc_vllm.train.loop import train
from moltc_vllm.train.mini import Lines
from moltc_vllm.train.recipe import Recipe
from moltc_vllm.train.vocabulary import training_phrases

DATA_SETS = ("combisolv_exp", "solubility")
PRETRAIN_PARTS = {"combisolv_qm": {"pairs": 96, "block": (48, 48)}, "properties": {"pairs": 8}}
FINETUNE_PARTS = {"combisolv_exp": {"pairs": 48, "block": (64, 0)}, "solubility": {"pairs": 24}}
_LONGEST = 180  # characters of a SMILES, so that two and a question fit into 512 positions
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?=;?$)")


class Variant(NamedTuple):
    """What differs from the full method."""

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


def trained(variant: Variant, seed: int, folder: Path, arguments: argparse.Namespace) -> Path:
    """Train a variant, or go on with it; its checkpoint."""
    common = {"ablate": variant.ablate, "seed": seed, "validate_every": 0, "save_every": 200}
    parts = {name: dict(part) for name, part in PRETRAIN_PARTS.items()}
    if not variant.properties:
        del parts["properties"]
    pretrain = Recipe.model_validate(
        {
            **common,
            "name": "pretrain",
            "stage": "pretrain",
            "parts": parts,
            "steps": arguments.pretrain_steps,
            "warmup": arguments.pretrain_steps // 8,
            "learning_rate": 1.5e-3,
            "average": 0.0,
        }
    )
    finetune = Recipe.model_validate(
        {
            **common,
            "name": "finetune",
            "stage": "finetune",
            "projectors": variant.projectors,
            "parts": FINETUNE_PARTS,
            "steps": arguments.finetune_steps,
            "warmup": arguments.finetune_steps // 16,
            "learning_rate": 1e-3,
            "average": 0.98,
        }
    )
    new = folder / "new"
    if not new.is_dir():
        create_checkpoint(
            "mini",
            new,
            seed=seed,
            phrases=training_phrases(),
            tasks=["solvation", "pair_properties"],
            settings={"prompt_style": variant.style, "max_smiles_characters": _LONGEST},
        )
    before: Path | None = new
    for recipe in (pretrain, finetune):
        watcher = Lines(f"{folder.name} {recipe.name}", every=100)
        run = folder / recipe.name
        before = train(recipe, arguments.data, run, watcher, checkpoint=before).checkpoint
        if before is None:
            raise SystemExit(130)
    assert before is not None
    return before


def stated(checkpoint: Path, name: str, rows: Sequence[Row], *, blind: bool) -> list[float | None]:
    """The number in each answer's text; ``None`` where there is none."""
    engine = TorchEngine(checkpoint, constrained=False)
    task = get_task(DATASETS[name].task)
    found: list[float | None] = []
    for start in range(0, len(rows), 64):
        prompts = []
        for row in rows[start : start + 64]:
            text, order = engine.style.compose(task, row.molecules)
            seen = [BLIND if blind else row.molecules[place] for place in order]
            prompts.append(Prompt(text, seen, task.name))
        for answer in engine.generate(task, prompts):
            match = _NUMBER.search(engine.text(answer.token_ids).strip())
            found.append(float(match[0]) if match else None)
    return found


def scores(checkpoint: Path, variant: Variant, data: Path) -> dict[str, dict[str, float]]:
    """Errors on the test parts."""
    blind = "graph" in variant.ablate
    result: dict[str, dict[str, float]] = {}
    for name, parts in read_parts(DATA_SETS, data).items():
        # The same rows for all variants: those whose SMILES the text-only one can read.
        rows = [row for row in parts.rows[TEST] if max(map(len, row.molecules)) <= _LONGEST]
        truth = np.array([float(row.target) for row in rows])
        mean = float(np.mean([float(row.target) for row in parts.rows[TRAIN]]))
        said = stated(checkpoint, name, rows, blind=blind)
        off = np.array([mean if one is None else one for one in said]) - truth
        result[name] = {
            "pairs": len(rows),
            "unread": sum(one is None for one in said),
            "stated_rmse": round(float(np.sqrt((off**2).mean())), 4),
            "stated_mae": round(float(np.abs(off).mean()), 4),
        }
    if not variant.ablate:  # there is a distribution over intervals, and graphs are as they are
        for name, metrics in measure(checkpoint, data, DATA_SETS).items():
            result[name]["expected_rmse"] = round(metrics["rmse"], 4)
    return result


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds, in Markdown; the span of the seeds behind them."""
    rows = ["| | " + " | ".join(f"{name} {what}" for name in DATA_SETS for what in SHOWN) + " |"]
    rows.append("|---|" + "---|" * (len(DATA_SETS) * len(SHOWN)))
    for variant in VARIANTS:
        own = [line["scores"] for line in lines if line["variant"] == variant]
        if own:
            cells = [_cell(own, name, what) for name in DATA_SETS for what in SHOWN]
            rows.append(f"| {variant} ({len(own)} seeds) | " + " | ".join(cells) + " |")
    return "\n".join(rows)


SHOWN = ("stated_rmse", "stated_mae", "expected_rmse")


def _cell(own: Sequence[dict[str, dict[str, float]]], name: str, what: str) -> str:
    found = [one[name][what] for one in own if what in one[name]]
    if not found:
        return "-"
    return f"{statistics.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def main() -> None:
    """Run what is not in the file yet, and print the table of the whole file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--pretrain-steps", type=int, default=400)
    parser.add_argument("--finetune-steps", type=int, default=800)
    arguments = parser.parse_args()
    steps = [arguments.pretrain_steps, arguments.finetune_steps]
    known = read_results(arguments.out) if arguments.out.is_file() else []
    for seed in arguments.seeds:
        for name in arguments.variant:
            identity = {"variant": name, "seed": seed, "steps": steps}
            if any(identity.items() <= line.items() for line in known):
                continue
            variant = VARIANTS[name]
            folder = arguments.runs / f"{name}-{seed}-{'-'.join(map(str, steps))}"
            checkpoint = trained(variant, seed, folder, arguments)
            line = {**identity, "scores": scores(checkpoint, variant, arguments.data)}
            known.append({**line, **described("torch")})
            with arguments.out.open("a") as file:
                file.write(json.dumps(known[-1]) + "\n")
    print(table([line for line in known if line["steps"] == steps]))


if __name__ == "__main__":
    main()
