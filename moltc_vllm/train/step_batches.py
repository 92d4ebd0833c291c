"""Training batches, each a pure function of recipe and step."""

from __future__ import annotations

import numpy as np
import torch

from moltc_vllm.tasks import Choice, Number
from moltc_vllm.train.batch import Batch, Collator, PairBlock
from moltc_vllm.train.molecule_targets import MoleculeBatch
from moltc_vllm.train.recipe import Recipe
from moltc_vllm.train.sampler import PairBlockSampler, process_slices, step_rng
from moltc_vllm.train.training_data import TrainingData


class StepBatches:
    """Batches of a run, for one of its processes.

    Args:
        recipe: Recipe with mixture and seed.
        data: Examples to draw from.
        collator: Collator that makes tensors of the drawn pairs.
        process: Index of this process.
        processes: Number of processes, which divide each batch among themselves.
        device: Device of the batches.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        collator: Collator,
        process: int,
        processes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._recipe = recipe
        self._data = data
        self._collator = collator
        self._process, self._processes, self._device = process, processes, device
        self._samplers = {
            name: PairBlockSampler(name, data.train[name].molecules, component.block, recipe.seed)
            for name, component in recipe.mixture.items()
        }
        counts = [component.batch_size for component in recipe.mixture.values()]
        slices = process_slices(counts, process, processes)
        self._slices = dict(zip(recipe.mixture, slices, strict=True))

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of a step, counted from 0."""
        return self._collator([self._block(name, step) for name in self._recipe.mixture])

    def molecules(self, step: int) -> MoleculeBatch | None:
        """Return this process's molecules of the auxiliary training; ``None`` without it."""
        targets = self._data.molecule_targets
        if targets is None:
            return None
        return targets.batch(step, self._process, self._processes, self._device)

    def _block(self, name: str, step: int) -> PairBlock:
        """Draw the pairs of one data set."""
        component = self._recipe.mixture[name]
        examples, own = self._data.train[name], self._slices[name]
        size = component.batch_size
        indices = self._samplers[name].indices(step * size, size)[own]
        rng = step_rng(self._recipe.seed, name, step)
        reverse = rng.random(size)[own] < 0.5
        full_text = rng.random(size)[own] < self._recipe.loss.full_text_fraction
        # The rest of the text may be left out only if the first token decides the answer.
        decisive = (Choice, Number) if self._recipe.uses_intervals else Choice
        if not isinstance(examples.task.kind, decisive):
            full_text[:] = True
        molecules = examples.molecules[indices]
        if component.both_orders:
            molecules = np.where(reverse[:, None], molecules[:, ::-1], molecules)
        answers = examples.answers[indices]
        return PairBlock(
            examples.task,
            molecules,
            examples.texts,
            answers,
            np.where(full_text, examples.texts.lengths[answers], 1),
            examples.values[indices],
        )
