"""Training loop of every stage, on Accelerate."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import nn

from moltc_vllm.models.checkpoint import CARD_FILE, load_model, load_tokenizer, read_card
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.train.batch import Batch, Collator
from moltc_vllm.train.ema import averaged_model, create_ema
from moltc_vllm.train.export import export_checkpoint
from moltc_vllm.train.fit_encoder import fit_encoder
from moltc_vllm.train.initial_checkpoint import create_initial_checkpoint
from moltc_vllm.train.log import TrainingLog, draw_curves
from moltc_vllm.train.loss import LOSS_NAMES, AnswerLoss, LossComponents
from moltc_vllm.train.molecule_targets import MoleculeBatch, MoleculeHeads
from moltc_vllm.train.progress import NullTrainingProgress, TrainingProgress
from moltc_vllm.train.recipe import Recipe
from moltc_vllm.train.run_state import RunIdentity, check_run_identity, write_run_identity
from moltc_vllm.train.schedule import learning_rate
from moltc_vllm.train.sharing import parameter_groups, prepare_model
from moltc_vllm.train.state_store import StateStore
from moltc_vllm.train.step_batches import StepBatches
from moltc_vllm.train.training_data import TrainingData, read_training_data, recipe_tasks
from moltc_vllm.train.validate import validate
from moltc_vllm.utils.signals import stop_on_signal

Device = Literal["auto", "cpu", "cuda"]

CHECKPOINT = "checkpoint"
"""Folder of the trained model in a run's folder."""

INITIAL_CHECKPOINT = "start"
"""Folder of the model that a run starts from, in the run's folder; deleted when it ends."""

TARGETS_CACHE = "molecule-targets"
"""Folder of calculated targets of molecules, beside the folders of the runs, which share it."""

LOG_EVERY = 20
"""Number of steps whose mean loss is one line of the log."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Outcome of a training run.

    Attributes:
        checkpoint: Folder of the trained model; ``None`` if the run was interrupted.
        step: Number of finished steps, including those of earlier commands.
        valid: Metrics of the last validation, by data set and name.
    """

    checkpoint: Path | None
    step: int
    valid: dict[str, dict[str, float]]


def train(
    recipe: Recipe,
    data: Path,
    run: Path,
    progress: TrainingProgress,
    *,
    checkpoint: Path | None = None,
    device: Device = "auto",
) -> TrainingResult:
    """Run a training stage, or resume it where it was interrupted.

    A run that is finished is left unchanged.

    Args:
        recipe: Settings of the stage.
        data: Folder of the data files.
        run: Folder of the run, for log, curves, saved states and the trained ``checkpoint/``.
        progress: Receiver of messages and finished steps.
        checkpoint: Model to start from; default: random weights of the recipe's preset.
        device: Device to train on; ``auto`` is a GPU if there is one.

    Raises:
        ValueError: If the run was started with other settings, or there is no GPU for ``cuda``.
        CheckpointError: If the model cannot be read.
        DataError: If the data cannot be read.
    """
    # A step may lack pairs of some tasks, and then leaves their projectors without gradients.
    find_unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: PyTorch finds no GPU; use cpu, or install the extra 'cuda'")
    accelerator = Accelerator(
        mixed_precision=recipe.precision, cpu=device == "cpu", kwargs_handlers=[find_unused]
    )
    if not accelerator.is_main_process:
        progress = NullTrainingProgress()
    init_from = str(checkpoint or recipe.init_from)
    identity = RunIdentity(recipe, init_from, accelerator.num_processes)
    check_run_identity(run, identity)
    finished = run / CHECKPOINT
    if (finished / CARD_FILE).is_file():
        progress.message(f"{run} is finished")
        return TrainingResult(finished, recipe.max_steps, read_card(finished)["metrics"]["valid"])
    # No process may write before all of them have checked the folder.
    accelerator.wait_for_everyone()
    initial_checkpoint = run / INITIAL_CHECKPOINT
    if accelerator.is_main_process:
        create_initial_checkpoint(recipe, initial_checkpoint, checkpoint)
        write_run_identity(run, identity)
    accelerator.wait_for_everyone()
    model, tokenizer = load_model(initial_checkpoint), load_tokenizer(initial_checkpoint)
    prepare_model(model, recipe)
    if recipe.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable()
    examples = read_training_data(
        recipe,
        data,
        model.config,
        tokenizer,
        progress.message,
        cache=run.parent / TARGETS_CACHE,
    )
    fit_encoder(model, examples, recipe, progress.message)
    # Creating a model consumes random numbers and loading one does not. Reseeding makes dropout the
    # same in both cases.
    set_seed(recipe.seed)
    return _Trainer(recipe, run, accelerator, model, tokenizer, examples, progress).run()


class _LossModule(nn.Module):
    """Model and loss in one module, as distributed training requires a single ``forward``."""

    def __init__(self, model: MoltcModel, loss: AnswerLoss, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self._loss = loss
        if recipe.molecules is not None:
            self.heads = MoleculeHeads(model.config, recipe.molecules.targets)
            self._molecules_weight = recipe.molecules.weight

    def forward(self, batch: Batch, molecules: MoleculeBatch | None) -> LossComponents:
        components = self._loss(self.model, batch)
        if molecules is None:
            return components
        loss = self.heads.loss(self.model.molecule_encoder, molecules)
        total = components.total + self._molecules_weight * loss
        return components._replace(total=total, molecules=loss.detach())


class _Trainer:
    """State of a run in memory: model, optimizer, batches, log and saved states."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        accelerator: Accelerator,
        model: MoltcModel,
        tokenizer: MoltcTokenizer,
        data: TrainingData,
        progress: TrainingProgress,
    ) -> None:
        self.recipe, self.folder, self.progress = recipe, run, progress
        self.accelerator, self.model = accelerator, model
        self.tokenizer, self.data = tokenizer, data
        loss_module = _LossModule(
            model, AnswerLoss(recipe.loss, tokenizer, recipe.uses_intervals), recipe
        )
        optimizer = torch.optim.AdamW(
            parameter_groups(loss_module, recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.loss_module, self.optimizer = accelerator.prepare(loss_module, optimizer)
        self.collator = Collator(data.molecules, model.config, tokenizer, accelerator.device)
        self.batches = StepBatches(
            recipe,
            data,
            self.collator,
            accelerator.process_index,
            accelerator.num_processes,
            accelerator.device,
        )
        self.ema = create_ema(model, recipe.ema_decay)
        self.states = StateStore(run, accelerator, self.ema)
        # The pending losses are those of the steps since the last line of the log.
        self.step, self._pending_losses = self.states.load_latest(progress)
        if accelerator.is_main_process:
            self.log = TrainingLog(run, self.step)

    def run(self) -> TrainingResult:
        """Train up to the last step and export the model, or save a state when interrupted."""
        recipe, start_time, pairs = self.recipe, time.monotonic(), 0
        valid: dict[str, dict[str, float]] = {}
        self.loss_module.train()
        with stop_on_signal() as interrupted:
            while self.step < recipe.max_steps:
                losses = self._optimize()
                self._pending_losses.append(losses.as_floats())
                self.step += 1
                pairs += recipe.pairs_per_step
                rate = pairs / (time.monotonic() - start_time)
                self.progress.update(self.step, recipe.max_steps, rate, float(losses.total))
                if self.step % LOG_EVERY == 0 or self.step == recipe.max_steps:
                    self._log_losses(rate)
                if self._is_due(recipe.validate_every):
                    valid = self._validate()
                if interrupted():
                    self.accelerator.set_trigger()
                stop = self.accelerator.check_trigger()  # the same in all processes
                if self._is_due(recipe.save_every) or stop:
                    self.states.save(self.step, self._pending_losses)
                if stop:
                    self.progress.message(
                        f"interrupted after step {self.step}; run the command again to resume"
                    )
                    return TrainingResult(None, self.step, valid)
        valid = self._validate()
        return TrainingResult(self._finish(valid), self.step, valid)

    def _is_due(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0 and self.step < self.recipe.max_steps

    def _optimize(self) -> LossComponents:
        """Do one optimizer step and return its losses."""
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses: LossComponents = self.loss_module(
            self.batches.batch(self.step), self.batches.molecules(self.step)
        )
        if not torch.isfinite(losses.total):
            raise FloatingPointError(
                f"the loss of step {self.step + 1} is {losses.total.item()}; "
                "lower learning_rate or max_grad_norm"
            )
        self.accelerator.backward(losses.total)
        self.accelerator.clip_grad_norm_(self.loss_module.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return losses._replace(total=losses.total.detach())

    def _log_losses(self, rate: float) -> None:
        means = [sum(column) / len(column) for column in zip(*self._pending_losses, strict=True)]
        self._pending_losses = []
        named = {name: round(mean, 5) for name, mean in zip(LOSS_NAMES, means, strict=False)}
        if self.accelerator.is_main_process:
            lr = learning_rate(self.recipe, self.step - 1)
            self.log.write(self.step, **named, learning_rate=lr, pairs_per_second=round(rate, 1))

    def _validate(self) -> dict[str, dict[str, float]]:
        model = averaged_model(self.model, self.ema)
        valid = validate(model, self.collator, self.tokenizer, self.data.valid)
        if self.accelerator.is_main_process:
            self.log.write(self.step, valid=valid)
            draw_curves(self.folder)
            texts = [
                f"{name} {metric} {value:.4g}"
                for name, metrics in valid.items()
                for metric, value in metrics.items()
            ]
            self.progress.message(f"step {self.step}: {', '.join(texts)}")
        return valid

    def _finish(self, valid: dict[str, dict[str, float]]) -> Path:
        """Export the trained model and delete the files that only a resumed run needs."""
        folder = self.folder / CHECKPOINT
        if self.accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            initial_checkpoint = self.folder / INITIAL_CHECKPOINT
            earlier_stages = read_card(initial_checkpoint).get("stages", [])
            card = {
                "prompt_style": self.model.config.prompt_style,
                "stages": [*earlier_stages, self.recipe.model_dump(mode="json")],
                "trained_on": list(self.recipe.mixture),
                "tasks": [task.name for task in recipe_tasks(self.recipe, self.model.config.tasks)],
                "metrics": {"valid": valid},
            }
            export_checkpoint(folder, averaged_model(self.model, self.ema), self.tokenizer, card)
            shutil.rmtree(initial_checkpoint)
            self.states.clear()
        return folder
