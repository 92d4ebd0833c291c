"""Saved states of a run, from which it is resumed with the same results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch.optim.swa_utils import AveragedModel

from moltc_vllm.train.progress import TrainingProgress
from moltc_vllm.train.run_state import list_states, new_state_folder
from moltc_vllm.utils.errors import one_line

_EMA_FILE = "average.pt"
_PENDING_LOSSES_FILE = "pending_losses.json"
_PENDING_LOSSES_FILE_0_1 = "untold.json"  # name in states written by version 0.1


class StateStore:
    """Writer and reader of a run's states.

    A state holds weights, optimizer, random number generators, the moving average of the weights
    and the losses that are not in the log yet.

    Args:
        run: Folder of the run.
        accelerator: Accelerator that has prepared model and optimizer.
        ema: Moving average of the weights; ``None`` if averaging is off.
    """

    def __init__(self, run: Path, accelerator: Accelerator, ema: AveragedModel | None) -> None:
        self._run = run
        self._accelerator = accelerator
        self._ema = ema

    def save(self, step: int, pending_losses: list[list[float]]) -> None:
        """Save the state after a step; all processes must call this.

        Args:
            step: Number of finished steps.
            pending_losses: Loss components of the steps that are not in the log yet.
        """
        is_main = self._accelerator.is_main_process
        wait = self._accelerator.wait_for_everyone
        with new_state_folder(self._run, step, is_main=is_main, wait=wait) as folder:
            self._accelerator.save_state(str(folder))
            if is_main:
                (folder / _PENDING_LOSSES_FILE).write_text(json.dumps(pending_losses))
                if self._ema is not None:
                    torch.save(self._ema.state_dict(), folder / _EMA_FILE)

    def load_latest(self, progress: TrainingProgress) -> tuple[int, list[list[float]]]:
        """Restore the newest state that can be read.

        Args:
            progress: Receiver of messages about the restored and damaged states.

        Returns:
            Number of finished steps and the losses that are not in the log yet; zero and an empty
            list if no state can be read.
        """
        for step, folder in reversed(list_states(self._run)):
            try:
                pending_losses = self._load(folder)
            except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
                progress.message(f"{folder.name} cannot be read: {one_line(error)[:200]}")
                continue
            progress.message(f"resuming after step {step}")
            return step, pending_losses
        return 0, []

    def clear(self) -> None:
        """Delete all states of the run."""
        for _, folder in list_states(self._run):
            shutil.rmtree(folder)

    def _load(self, folder: Path) -> list[list[float]]:
        self._accelerator.load_state(str(folder))
        losses_file = folder / _PENDING_LOSSES_FILE
        if not losses_file.is_file():
            losses_file = folder / _PENDING_LOSSES_FILE_0_1
        pending_losses: list[list[float]] = json.loads(losses_file.read_text())
        if self._ema is not None:
            state = torch.load(folder / _EMA_FILE, weights_only=True, map_location="cpu")
            self._ema.load_state_dict(state)
        return pending_losses
