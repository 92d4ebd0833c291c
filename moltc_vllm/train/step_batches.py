"""Training batches, each a pure function of recipe and step."""

from __future__ import annotations

from collections.abc import Iterator

from moltc_vllm.tasks import Choice, Number
from moltc_vllm.train.batch import Batch, Collator, PairItem
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
    """

    def __init__(
        self, recipe: Recipe, data: TrainingData, collator: Collator, process: int, processes: int
    ) -> None:
        self._recipe = recipe
        self._data = data
        self._collator = collator
        self._samplers = {
            name: PairBlockSampler(name, data.train[name].molecules, component.block, recipe.seed)
            for name, component in recipe.mixture.items()
        }
        counts = [component.batch_size for component in recipe.mixture.values()]
        slices = process_slices(counts, process, processes)
        self._slices = dict(zip(recipe.mixture, slices, strict=True))

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of a step, counted from 0."""
        return self._collator(
            [item for name in self._recipe.mixture for item in self._items(name, step)]
        )

    def _items(self, name: str, step: int) -> Iterator[PairItem]:
        """Draw the pairs of one data set."""
        component = self._recipe.mixture[name]
        examples, own = self._data.train[name], self._slices[name]
        size = component.batch_size
        indices = self._samplers[name].indices(step * size, size)
        rng = step_rng(self._recipe.seed, name, step)
        reverse = rng.random(size)[own] < 0.5
        full_text = rng.random(size)[own] < self._recipe.loss.full_text_fraction
        # The rest of the text may be left out only if the first token decides the answer.
        decisive = (Choice, Number) if self._recipe.uses_intervals else Choice
        always_full = not isinstance(examples.task.kind, decisive)
        for position, index in enumerate(indices[own].tolist()):
            pair = examples.molecules[index].tolist()
            if component.both_orders and reverse[position]:
                pair.reverse()
            answer = examples.texts[examples.answers[index]]
            if not (always_full or full_text[position]):
                answer = answer[:1]
            yield PairItem(examples.task, pair, answer, float(examples.values[index]))
