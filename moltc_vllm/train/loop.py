"""The training loop: one for every stage, on Accelerate."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from safetensors import SafetensorError
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from moltc_vllm.models.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    CheckpointError,
    load_config,
    load_model,
    load_tokenizer,
    read_card,
)
from moltc_vllm.models.conversion.split import split_projectors
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.presets import PRESETS, create_checkpoint
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Choice, Number
from moltc_vllm.train.batch import Batch, Collator, Item
from moltc_vllm.train.dataset import TrainingData, read_training_data, tasks_of
from moltc_vllm.train.export import export_checkpoint
from moltc_vllm.train.log import Log, draw_curves
from moltc_vllm.train.loss import AnswerLoss, LossComponents
from moltc_vllm.train.recipe import Recipe
from moltc_vllm.train.run_state import (
    RunIdentity,
    check_run_identity,
    new_state,
    states,
    write_run_identity,
)
from moltc_vllm.train.sampler import PairBlockSampler, shares, step_rng
from moltc_vllm.train.sharing import parameter_groups, prepare_model
from moltc_vllm.train.validate import validate
from moltc_vllm.train.vocabulary import training_phrases
from moltc_vllm.utils.atomic_files import new_folder
from moltc_vllm.utils.signals import stop_on_signal

CHECKPOINT = "checkpoint"
"""Folder of the trained model in that of the run."""

LOG_EVERY = 20
"""Steps whose mean loss is one line of the log."""

_PENDING_LOSSES_FILE = "pending_losses.json"
_PENDING_LOSSES_FILE_0_1 = "untold.json"  # the name in states written by version 0.1


class TrainingProgress(Protocol):
    """Who looks at a run while it goes on."""

    def tell(self, line: str) -> None:
        """Something happened."""
        ...

    def at(self, step: int, steps: int, pairs_per_second: float, loss: float) -> None:
        """A step is done."""
        ...


class NullTrainingProgress:
    """Progress of the processes other than the first, which reports for all of them."""

    def tell(self, line: str) -> None:
        """Ignore the message."""

    def at(self, step: int, steps: int, pairs_per_second: float, loss: float) -> None:
        """Ignore the step."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        checkpoint: Folder of the trained model; ``None`` if the run was interrupted.
        step: Steps that were done, in this call and before.
        valid: The last look at the valid parts.
    """

    checkpoint: Path | None
    step: int
    valid: dict[str, dict[str, float]]


def train(
    recipe: Recipe,
    data: Path,
    run: Path,
    watcher: TrainingProgress,
    *,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """Run a stage, or go on with it where it was interrupted; a finished one is left as it is.

    Args:
        recipe: What is done.
        data: Folder of the data files.
        run: Folder of the run: log, curves, states, and at the end ``checkpoint/``.
        watcher: Is told of progress.
        checkpoint: Model to begin with; default: a new one of the recipe's preset.

    Raises:
        ValueError: If the run was begun with another recipe.
        CheckpointError: If the model cannot be read.
        DataError: If the data cannot be read.
    """
    # A step need not have pairs of every task, and each has projectors of its own.
    partial = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision=recipe.precision, kwargs_handlers=[partial])
    if not accelerator.is_main_process:
        watcher = NullTrainingProgress()
    begun = RunIdentity(recipe, str(checkpoint or recipe.start), accelerator.num_processes)
    check_run_identity(run, begun)
    done = run / CHECKPOINT
    if (done / CARD_FILE).is_file():
        watcher.tell(f"{run} is finished")
        return TrainingResult(done, recipe.steps, read_card(done)["metrics"]["valid"])
    accelerator.wait_for_everyone()  # all have looked
    if accelerator.is_main_process:
        _begin(recipe, run, checkpoint)
        write_run_identity(run, begun)
    accelerator.wait_for_everyone()
    start = run / "start"
    model, tokenizer = load_model(start), load_tokenizer(start)
    prepare_model(model, recipe)
    if recipe.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable()
    corpus = read_training_data(recipe, data, model.config, tokenizer, watcher.tell)
    set_seed(recipe.seed)  # of dropout, whether or not the model is new
    trainer = _Trainer(recipe, run, accelerator, model, tokenizer, corpus, watcher)
    return trainer.run()


def _begin(recipe: Recipe, run: Path, checkpoint: Path | None) -> None:
    """Put the model to begin with into ``start/``, with as many projectors as the stage has."""
    start = run / "start"
    if start.is_dir():
        return
    learned = [task.name for task in tasks_of(recipe)]
    if checkpoint is None:
        new = PRESETS.get(recipe.start)
        phrases = training_phrases() if new is not None and new.has_phrases else None
        create_checkpoint(
            recipe.start,
            start,
            projector_sharing=recipe.projectors,
            seed=recipe.seed,
            phrases=phrases,
            tasks=learned,
        )
        return
    old = load_config(checkpoint)
    if old.projector_sharing == recipe.projectors:
        added = [name for name in learned if name not in old.tasks]
        if added and recipe.projectors == "task_role":
            raise CheckpointError(f"{checkpoint} has no projectors of {', '.join(added)}")
        with new_folder(start, CheckpointError) as partial:
            shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
            config = json.loads((partial / CONFIG_FILE).read_text())
            config["tasks"] = [*old.tasks, *added]
            (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    else:
        # A projector of a task that is not learned would pass for one that is.
        split_projectors(checkpoint, start, recipe.projectors, tasks=learned)


class _LossModule(nn.Module):
    """The model behind its loss: what several processes share has to be one module's `forward`."""

    def __init__(self, model: MoltcModel, loss: AnswerLoss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Batch) -> LossComponents:
        return self._loss(self.model, batch)


class _Trainer:
    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        accelerator: Accelerator,
        model: MoltcModel,
        tokenizer: MoltcTokenizer,
        corpus: TrainingData,
        watcher: TrainingProgress,
    ) -> None:
        self.recipe, self.folder, self.watcher = recipe, run, watcher
        self.accelerator, self.tokenizer, self.corpus = accelerator, tokenizer, corpus
        self.plain = model
        self.orders = {
            name: PairBlockSampler(name, corpus.train[name].molecules, part.block, recipe.seed)
            for name, part in recipe.parts.items()
        }
        groups = parameter_groups(model, recipe.weight_decay)
        optimiser = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True
        )
        learner = _LossModule(model, AnswerLoss(recipe.loss, tokenizer, recipe.intervals))
        self.learner, self.optimiser = accelerator.prepare(learner, optimiser)
        self.collator = Collator(corpus.molecules, model.config, tokenizer, accelerator.device)
        self.average = _average_of(model, recipe.average)
        self._pending_losses: list[list[float]] = []  # losses since the last line of the log
        self.step = self._resume()
        if accelerator.is_main_process:
            self.log = Log(run, self.step)

    def run(self) -> TrainingResult:
        recipe, began, done = self.recipe, time.monotonic(), 0
        valid: dict[str, dict[str, float]] = {}
        self.learner.train()
        with stop_on_signal() as interrupted:
            while self.step < recipe.steps:
                terms = self._learn()
                self._pending_losses.append([float(term) for term in terms])
                self.step += 1
                done += sum(part.pairs for part in recipe.parts.values())
                rate = done / (time.monotonic() - began)
                self.watcher.at(self.step, recipe.steps, rate, float(terms.total))
                if self.step % LOG_EVERY == 0 or self.step == recipe.steps:
                    self._write_losses(rate)
                if self._is_due(recipe.validate_every):
                    valid = self._validate()
                if interrupted():
                    self.accelerator.set_trigger()
                stop = self.accelerator.check_trigger()  # all processes or none
                if self._is_due(recipe.save_every) or stop:
                    self._save()
                if stop:
                    self.watcher.tell(f"interrupted after step {self.step}; run again to go on")
                    return TrainingResult(None, self.step, valid)
        valid = self._validate()
        return TrainingResult(self._finish(valid), self.step, valid)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0 and self.step < self.recipe.steps

    def _learn(self) -> LossComponents:
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        terms: LossComponents = self.learner(self._batch())
        if not torch.isfinite(terms.total):
            raise FloatingPointError(f"the loss is {terms.total.item()} in step {self.step + 1}")
        self.accelerator.backward(terms.total)
        self.accelerator.clip_grad_norm_(self.plain.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.plain)
        return terms._replace(total=terms.total.detach())

    def _batch(self) -> Batch:
        """The pairs of the next step; those of any step follow from its number alone."""
        items: list[Item] = []
        counts = [part.pairs for part in self.recipe.parts.values()]
        mine = shares(counts, self.accelerator.process_index, self.accelerator.num_processes)
        for (name, part), share in zip(self.recipe.parts.items(), mine, strict=True):
            examples = self.corpus.train[name]
            chosen = self.orders[name].take(self.step * part.pairs, part.pairs)
            rng = step_rng(self.recipe.seed, name, self.step)
            turned = rng.random(part.pairs)[share] < 0.5
            whole = rng.random(part.pairs)[share] < self.recipe.loss.whole
            decided = (Choice, Number) if self.recipe.intervals else Choice
            free = not isinstance(examples.task.kind, decided)
            for at, number in enumerate(chosen[share].tolist()):
                pair = examples.molecules[number].tolist()
                if part.both_orders and turned[at]:
                    pair.reverse()
                answer = examples.texts[examples.answers[number]]
                if not (free or whole[at]):
                    answer = answer[:1]
                items.append(Item(examples.task, pair, answer, float(examples.values[number])))
        return self.collator(items)

    def _write_losses(self, rate: float) -> None:
        means = [sum(column) / len(column) for column in zip(*self._pending_losses, strict=True)]
        self._pending_losses = []
        named = dict(zip(("loss", "first", "rest", "expected"), means, strict=True))
        named = {name: round(value, 5) for name, value in named.items()}
        if self.accelerator.is_main_process:
            lr = learning_rate(self.recipe, self.step - 1)
            self.log.write(self.step, **named, learning_rate=lr, pairs_per_second=round(rate, 1))

    def _validate(self) -> dict[str, dict[str, float]]:
        valid = validate(self._best(), self.collator, self.tokenizer, self.corpus.valid)
        if self.accelerator.is_main_process:
            self.log.write(self.step, valid=valid)
            draw_curves(self.folder)
            shown = [
                f"{name} {metric} {value:.4g}"
                for name, metrics in valid.items()
                for metric, value in metrics.items()
            ]
            self.watcher.tell(f"step {self.step}: {', '.join(shown)}")
        return valid

    def _best(self) -> MoltcModel:
        """The averaged weights, where there are any."""
        if self.average is None:
            return self.plain
        average = self.average.module
        assert isinstance(average, MoltcModel)
        return average

    def _save(self) -> None:
        main = self.accelerator.is_main_process
        wait = self.accelerator.wait_for_everyone
        with new_state(self.folder, self.step, main=main, wait=wait) as folder:
            self.accelerator.save_state(str(folder))
            if main:
                (folder / _PENDING_LOSSES_FILE).write_text(json.dumps(self._pending_losses))
                if self.average is not None:
                    torch.save(self.average.state_dict(), folder / "average.pt")

    def _resume(self) -> int:
        for step, folder in reversed(states(self.folder)):
            try:
                self._load(folder)
            except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
                reason = " ".join(str(error).split())[:200]
                self.watcher.tell(f"{folder.name} cannot be read: {reason}")
                continue
            self.watcher.tell(f"going on after step {step}")
            return step
        return 0

    def _load(self, folder: Path) -> None:
        self.accelerator.load_state(str(folder))
        losses_file = folder / _PENDING_LOSSES_FILE
        if not losses_file.is_file():
            losses_file = folder / _PENDING_LOSSES_FILE_0_1
        self._pending_losses = json.loads(losses_file.read_text())
        if self.average is not None:
            average = torch.load(folder / "average.pt", weights_only=True, map_location="cpu")
            self.average.load_state_dict(average)

    def _finish(self, valid: dict[str, dict[str, float]]) -> Path:
        folder = self.folder / CHECKPOINT
        if self.accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            before = read_card(self.folder / "start")
            card = {
                "prompt_style": self.plain.config.prompt_style,
                "stages": [*before.get("stages", []), self.recipe.model_dump(mode="json")],
                "trained_on": list(self.recipe.parts),
                "tasks": [task.name for task in tasks_of(self.recipe)],
                "metrics": {"valid": valid},
            }
            export_checkpoint(folder, self._best(), self.tokenizer, card)
            shutil.rmtree(self.folder / "start")
            for _, path in states(self.folder):
                shutil.rmtree(path)
        return folder


def learning_rate(recipe: Recipe, step: int) -> float:
    """Of a step, counted from 0: linear warm-up, then a cosine down to the floor."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    fall = 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * (recipe.floor + (1 - recipe.floor) * fall)


def _average_of(model: MoltcModel, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
