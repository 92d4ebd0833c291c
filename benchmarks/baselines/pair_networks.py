"""Networks of pairs: an encoder of molecules, a tower for each of both roles, and a joint head.

The encoder is a set of fixed features (Morgan counts, RDKit descriptors, MiniMol), a graph network
or a language model of SMILES. For tasks in which the order of the molecules has no meaning, both
roles share a tower, and the head sees the sum and the product of both. Networks of solvation are
trained on computed energies first. No setting is selected with the scored rows; the valid rows are
not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.molecule_encoders import (
    FeatureEncoder,
    GraphNetwork,
    SmilesLanguageModel,
    read_features,
)
from baselines.molecule_features import FeatureStore
from baselines.problem import COMPUTED, Answers, Problem, Solution, cpu_seconds
from moltc_vllm.data import Row
from moltc_vllm.tasks import Number, Task

DEFAULT_EPOCHS = 30
EPOCHS = {"solubility": 80, "ddi": 15, "ddi_biosnap": 15, "ddi_type": 10}
"""Numbers of passes of tasks with few or with many rows."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Settings of a network and its training.

    Attributes:
        features: Kinds of fixed features; empty for an encoder that is trained.
        encoder: ``features``, ``graph`` or ``smiles``.
        width: Width of towers and head.
        input_dropout: Dropout rate of what the encoder returns.
        dropout: Dropout rate of all other layers.
        epochs: Number of passes over the train rows.
        computed_epochs: Number of passes over the rows with computed targets, before that.
        language_epochs: Number of passes of a language model over the SMILES of the train rows,
            before that.
        batch_size: Number of pairs per step.
        learning_rate: Largest learning rate; half of it after computed targets.
        weight_decay: Weight decay of AdamW.
    """

    features: tuple[str, ...] = ()
    encoder: str = "features"
    width: int = 256
    input_dropout: float = 0.1
    dropout: float = 0.1
    epochs: int = DEFAULT_EPOCHS
    computed_epochs: int = 2
    language_epochs: int = 0
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2


LABEL_DROPOUT = 0.3
"""Dropout rate of tasks with labels, in which a drug occurs in many rows."""

MIN_STEPS = 600
"""Smallest number of steps, for data sets with few rows."""


def settings_of(
    task: Task, features: Sequence[str] = (), encoder: str = "features", **changes: Any
) -> NetworkSettings:
    """Return the settings of a task.

    Args:
        task: Task to train.
        features: Kinds of fixed features.
        encoder: ``features``, ``graph`` or ``smiles``.
        changes: Other settings that differ from the task's own.
    """
    is_number = isinstance(task.kind, Number)
    dropout = 0.1 if is_number else LABEL_DROPOUT
    epochs = EPOCHS.get(task.name, DEFAULT_EPOCHS)
    settings: dict[str, Any] = {"dropout": dropout, "input_dropout": dropout, "epochs": epochs}
    if encoder != "features":
        # Trained encoders cost most of the time, and dropout before the towers suffices for them.
        settings |= {"width": 128, "computed_epochs": 1, "epochs": -(-epochs // 2)}
    if encoder == "smiles":
        settings["language_epochs"] = 5
    settings |= changes
    if task.name not in COMPUTED:
        settings["computed_epochs"] = 0
    return NetworkSettings(tuple(features), encoder, **settings)


def as_json(settings: NetworkSettings) -> dict[str, Any]:
    """Return settings as plain values, for results."""
    return asdict(settings)


def solve(
    problem: Problem, settings: NetworkSettings, store: FeatureStore, *, seed: int, threads: int
) -> Solution:
    """Train a network and predict the scored rows.

    Args:
        problem: Rows to train on and to predict.
        settings: Settings of the network.
        store: Features that have been computed before.
        seed: Seed of the weights and the training.
        threads: Number of threads.

    Raises:
        ValueError: If RDKit or MiniMol cannot read a molecule.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    begin = cpu_seconds()
    molecules = problem.molecules
    train_molecules = {m for row in (*problem.train, *problem.computed) for m in row.molecules}
    num_train, feature_s = len(train_molecules), 0.0
    encoder: nn.Module
    if settings.encoder == "features":
        begin_features = cpu_seconds()
        table, feature_s = read_features(store, settings.features, molecules, num_train)
        feature_s -= cpu_seconds() - begin_features  # features computed now count once
        encoder = FeatureEncoder(table)
    elif settings.encoder == "graph":
        encoder = GraphNetwork(molecules, settings.dropout)
    else:
        encoder = SmilesLanguageModel(molecules, settings.dropout)
    trainer = Trainer(problem, settings, encoder, molecules, seed)
    if isinstance(encoder, SmilesLanguageModel):
        trainer.train_language(encoder, num_train)
    if settings.computed_epochs and problem.computed:
        trainer.train(problem.computed, settings.computed_epochs, settings.learning_rate)
        trainer.train(problem.train, settings.epochs, settings.learning_rate / 2)
    else:
        trainer.train(problem.train, settings.epochs, settings.learning_rate)
    trained = cpu_seconds()
    answers = trainer.answers(problem.test_rows)
    end = cpu_seconds()
    rows = len(problem.train) + len(problem.computed)
    return Solution(answers, trained - begin + max(0.0, feature_s), end - trained, rows, 0)


class PairNetwork(nn.Module):
    """Network of pairs.

    Args:
        encoder: Encoder of molecules, from indices to ``[molecules, encoder.width]``.
        settings: Settings of the network.
        num_outputs: Number of outputs per pair.
        is_symmetric: Whether the order of the molecules has no meaning.
    """

    def __init__(
        self, encoder: nn.Module, settings: NetworkSettings, num_outputs: int, is_symmetric: bool
    ) -> None:
        super().__init__()
        width, dropout = settings.width, settings.dropout
        self.encoder, self.is_symmetric = encoder, is_symmetric
        self.input_dropout = nn.Dropout(settings.input_dropout)
        sizes = (int(encoder.width), width)
        self.first = nn.Sequential(_layer(*sizes, dropout), _layer(width, width, dropout))
        self.second = (
            self.first
            if is_symmetric
            else nn.Sequential(_layer(*sizes, dropout), _layer(width, width, dropout))
        )
        joint = (2 if is_symmetric else 3) * width
        self.head = nn.Sequential(
            _layer(joint, width, dropout),
            _layer(width, width, dropout),
            nn.Linear(width, num_outputs),
        )

    def forward(self, pairs: Tensor) -> Tensor:
        """Predict pairs of molecules.

        Args:
            pairs: Indices of both molecules, ``[pairs, 2]``.

        Returns:
            Outputs, ``[pairs, outputs]``.
        """
        # A molecule that is in several pairs of the batch is encoded once.
        molecules, position = torch.unique(pairs, return_inverse=True)
        return self.combine(self.input_dropout(self.encoder(molecules)), position)

    def combine(self, encoded: Tensor, position: Tensor) -> Tensor:
        """Predict pairs of encoded molecules; see `forward`.

        Args:
            encoded: Encoded molecules, ``[molecules, width]``.
            position: Positions of both molecules in ``encoded``, ``[pairs, 2]``.
        """
        a = self.first(encoded)[position[:, 0]]
        b = self.second(encoded)[position[:, 1]]
        parts = [a + b, a * b] if self.is_symmetric else [a, b, a * b]
        return self.head(torch.cat(parts, dim=1))


def _layer(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU(), nn.Dropout(dropout)
    )


class Trainer:
    """Training of a network of pairs, and its predictions.

    Args:
        problem: Rows to train on and to predict.
        settings: Settings of the network.
        encoder: Encoder of molecules.
        molecules: SMILES of the encoder's molecules.
        seed: Seed of the order of the rows.
    """

    def __init__(
        self,
        problem: Problem,
        settings: NetworkSettings,
        encoder: nn.Module,
        molecules: Sequence[str],
        seed: int,
    ) -> None:
        self.task, self.settings = problem.task, settings
        self.index = {smiles: index for index, smiles in enumerate(molecules)}
        self.generator = torch.Generator().manual_seed(seed)
        self.is_number = isinstance(problem.task.kind, Number)
        values = targets(problem.train)
        self.ids = [] if self.is_number else np.unique(values).tolist()
        self.mean, self.deviation = 0.0, 1.0
        if self.is_number:
            self.mean, self.deviation = float(values.mean()), float(values.std()) or 1.0
        self.network = PairNetwork(encoder, settings, max(1, len(self.ids)), self.task.symmetric)

    def train(self, rows: Sequence[Row], epochs: int, learning_rate: float) -> None:
        """Train on rows.

        Args:
            rows: Rows to train on.
            epochs: Number of passes, more if they would be less than `MIN_STEPS`.
            learning_rate: Largest learning rate.
        """
        pairs, values = self._pairs(rows), self._targets(rows)
        steps = max(MIN_STEPS, epochs * len(rows) // self.settings.batch_size)

        def loss(batch: Tensor) -> Tensor:
            outputs = self.network(pairs[batch])
            if self.is_number:
                return F.smooth_l1_loss(outputs[:, 0], values[batch])
            return F.cross_entropy(outputs, values[batch])

        self._optimize(self.network, loss, len(rows), steps, learning_rate)

    def train_language(self, encoder: SmilesLanguageModel, num_molecules: int) -> None:
        """Train a language model on the first molecules, to predict each next character."""
        settings = self.settings
        steps = settings.language_epochs * num_molecules // settings.batch_size
        self._optimize(
            encoder,
            encoder.language_loss,
            num_molecules,
            max(MIN_STEPS // 4, steps),
            settings.learning_rate,
        )

    def answers(self, rows: Sequence[Row]) -> Answers:
        """Answer rows with the trained network."""
        outputs = self._predict(self._pairs(rows)).double()
        if self.is_number:
            values: Array = outputs[:, 0].numpy() * self.deviation + self.mean
            return number_answers(self.task, rows, values)
        return label_answers(self.task, rows, self.ids, outputs.softmax(dim=1).numpy())

    @torch.inference_mode()
    def _predict(self, pairs: Tensor, block: int = 256) -> Tensor:
        self.network.eval()
        molecules, position = torch.unique(pairs, return_inverse=True)
        encoded = torch.cat([self.network.encoder(part) for part in molecules.split(block)])
        # Towers run once per molecule of a block of pairs.
        outputs = []
        for part in position.split(16 * block):
            own, place = torch.unique(part, return_inverse=True)
            outputs.append(self.network.combine(encoded[own], place))
        self.network.train()
        return torch.cat(outputs)

    def _optimize(
        self,
        module: nn.Module,
        loss: Callable[[Tensor], Tensor],
        count: int,
        steps: int,
        learning_rate: float,
    ) -> None:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            module.parameters(), learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, total_steps=steps, pct_start=0.1
        )
        module.train()
        for _ in range(steps):
            batch = torch.randint(count, (settings.batch_size,), generator=self.generator)
            optimizer.zero_grad()
            loss(batch).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    def _pairs(self, rows: Sequence[Row]) -> Tensor:
        indices = [[self.index[smiles] for smiles in row.molecules] for row in rows]
        return torch.tensor(indices).reshape(len(rows), -1)

    def _targets(self, rows: Sequence[Row]) -> Tensor:
        values = targets(rows)
        if self.is_number:
            return torch.from_numpy((values - self.mean) / self.deviation).float()
        return torch.from_numpy(np.searchsorted(self.ids, values))
