"""The molecule encoder and projection out of a published file: complete, and nothing besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from moltc_vllm.models.conversion.lightning import Lightning
from moltc_vllm.models.conversion.names import (
    GRAPH_ENCODER,
    PROJECTION,
    QUERIES,
    Layout,
    encoder_names,
    layout_of,
)
from moltc_vllm.models.conversion.pickles import read_tensors
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from moltc_vllm.models.weights import WeightsError, checked_tensor, summary, weight_mismatches

PROJECTION_SEED = 0
"""Of a projection that is drawn."""

_PROJECTION_NAMES = (f"{PROJECTION}weight", f"{PROJECTION}bias")


@dataclass(slots=True)
class PublishedEncoder:
    """Weights by published name without the stage's prefix, and where they are from.

    Attributes:
        path: The Lightning file.
        prefix: Of its names.
        weights: Graph encoder and Q-Former.
        projection: To the language model; empty for a file of stage 1.
        layout: Numbers of layers.
        graph_file: Where missing weights of the graph encoder were taken from.
        filled: Names of these.
    """

    path: Path
    prefix: str
    weights: dict[str, Tensor]
    projection: dict[str, Tensor]
    layout: Layout
    graph_file: Path | None = None
    filled: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[str, str]:
        """Our name of each weight."""
        return encoder_names(self.layout)

    def misnamed(self, *, with_projection: bool) -> list[str]:
        """One line for every weight that is superfluous or missing."""
        expected = [*self.names, *(_PROJECTION_NAMES if with_projection else ())]
        found = {**self.weights, **self.projection}
        return weight_mismatches(
            {f"{self.prefix}{key}": () for key in found},
            {f"{self.prefix}{key}": () for key in expected},
        )

    def misshapen(self, expected: Mapping[str, torch.Size], projector: str) -> list[str]:
        """One line for every weight of another shape.

        Args:
            expected: Shapes of our checkpoint.
            projector: Name of one of its projectors.
        """
        shapes = {
            theirs: expected[f"molecule_encoder.{ours}"] for theirs, ours in self.names.items()
        }
        shapes[QUERIES] = torch.Size([1, *shapes[QUERIES]])
        found = {key: tensor.shape for key, tensor in self.weights.items()}
        for key, tensor in self.projection.items():
            found[key] = tensor.shape
            shapes[key] = expected[f"projectors.{projector}.{key.removeprefix(PROJECTION)}"]
        return weight_mismatches(
            {self._label(key): shape for key, shape in found.items()},
            {self._label(key): shape for key, shape in shapes.items()},
        )

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """Graph encoder and Q-Former under our names.

        Raises:
            WeightsError: If a weight is not finite.
        """
        for theirs, ours in self.names.items():
            tensor = self._checked(theirs, self.weights[theirs])
            yield f"molecule_encoder.{ours}", tensor[0] if theirs == QUERIES else tensor

    def projector(self, shape: Sequence[int]) -> dict[str, Tensor]:
        """The projection's ``weight`` and ``bias``; new ones if it has none.

        Args:
            shape: Of the weight: width of the language model's embeddings, of the Q-Former.

        Raises:
            WeightsError: If a weight is not finite.
        """
        if self.projection:
            return {
                key.removeprefix(PROJECTION): self._checked(key, tensor)
                for key, tensor in self.projection.items()
            }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(PROJECTION_SEED)
            layer = nn.Linear(shape[1], shape[0])
            initialize_molecule_weights(layer)
        return {key: tensor.detach() for key, tensor in layer.state_dict().items()}

    def _checked(self, key: str, tensor: Tensor) -> Tensor:
        source = self.graph_file if key in self.filled else self.path
        return checked_tensor(self._label(key), tensor, source).contiguous()

    def _label(self, key: str) -> str:
        """A weight's name where it is from."""
        if key in self.filled:
            return key.removeprefix(GRAPH_ENCODER)
        return f"{self.prefix}{key}"


def published_encoder(lightning: Lightning, graph_file: Path | None) -> PublishedEncoder:
    """Take the encoder out of a Lightning file.

    Args:
        lightning: The file.
        graph_file: A plain state dict of the graph encoder. Weights that the Lightning file lacks
            are taken from it, and no others.

    Raises:
        WeightsError: If the graph encoder's file cannot be read, or is another encoder's.
    """
    parts = lightning.parts
    encoder = PublishedEncoder(
        lightning.path,
        parts.prefix,
        dict(parts.encoder),
        dict(parts.projection),
        layout_of(parts.encoder),
    )
    if graph_file is None:
        return encoder
    graph = {f"{GRAPH_ENCODER}{key}": tensor for key, tensor in read_tensors(graph_file).items()}
    if not any(key.startswith(GRAPH_ENCODER) for key in encoder.weights):
        layers = layout_of(graph).graph_layers  # this code's way of not saving what was frozen
        encoder.layout = Layout(layers, encoder.layout.qformer_layers, encoder.layout.crossing)
    _check_graph(graph, encoder, graph_file)
    encoder.filled = [key for key in encoder.names if key in graph and key not in encoder.weights]
    encoder.weights.update({key: graph[key] for key in encoder.filled})
    encoder.graph_file = graph_file
    return encoder


def _check_graph(graph: Mapping[str, Tensor], encoder: PublishedEncoder, path: Path) -> None:
    """A graph encoder that another one's gaps are filled from has to be of the same kind."""
    names = encoder.names
    lines = [
        f"superfluous weight {key.removeprefix(GRAPH_ENCODER)}" for key in graph if key not in names
    ]
    lines += [
        f"{key.removeprefix(GRAPH_ENCODER)} has shape {list(tensor.shape)}, "
        f"expected {list(encoder.weights[key].shape)}"
        for key, tensor in graph.items()
        if key in encoder.weights and tensor.shape != encoder.weights[key].shape
    ]
    if lines:
        raise WeightsError(summary(path, lines), lines)
