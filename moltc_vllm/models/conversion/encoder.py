"""Molecule encoder and projection of a published checkpoint, with checks of names and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from moltc_vllm.models.conversion.lightning import LightningCheckpoint
from moltc_vllm.models.conversion.pickles import read_state_dict
from moltc_vllm.models.conversion.weight_names import (
    GRAPH_ENCODER,
    PROJECTION,
    QUERIES,
    EncoderLayout,
    encoder_weight_names,
    infer_layout,
)
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from moltc_vllm.models.weights import (
    WeightsError,
    summarize_mismatches,
    validated_tensor,
    weight_mismatches,
)

PROJECTION_SEED = 0
"""Random seed of a newly initialized projection."""

_PROJECTION_NAMES = (f"{PROJECTION}weight", f"{PROJECTION}bias")


@dataclass(slots=True)
class PublishedEncoder:
    """Encoder weights by published name without the stage's prefix, and their source files.

    Attributes:
        path: Lightning file.
        prefix: Prefix of the weight names in the Lightning file.
        weights: Weights of the graph encoder and the Q-Former.
        projection: Projection to the language model; empty in a file of stage 1.
        layout: Layer structure.
        graph_file: File that missing weights of the graph encoder are read from, if given.
        filled: Names of the weights read from ``graph_file``.
    """

    path: Path
    prefix: str
    weights: dict[str, Tensor]
    projection: dict[str, Tensor]
    layout: EncoderLayout
    graph_file: Path | None = None
    filled: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[str, str]:
        """Own name of each published weight."""
        return encoder_weight_names(self.layout)

    def name_mismatches(self, *, with_projection: bool) -> list[str]:
        """Return one line for every superfluous or missing weight.

        Args:
            with_projection: Whether a projection is expected.
        """
        expected = [*self.names, *(_PROJECTION_NAMES if with_projection else ())]
        stored = {**self.weights, **self.projection}
        return weight_mismatches(
            {f"{self.prefix}{name}": () for name in stored},
            {f"{self.prefix}{name}": () for name in expected},
        )

    def shape_mismatches(self, expected: Mapping[str, Sequence[int]], projector: str) -> list[str]:
        """Return one line for every weight with an unexpected shape.

        Args:
            expected: Shapes of the weights in the checkpoint to write, by own name.
            projector: Name of any projector of that checkpoint.
        """
        shapes = {
            published: tuple(expected[f"molecule_encoder.{own}"])
            for published, own in self.names.items()
        }
        shapes[QUERIES] = (1, *shapes[QUERIES])
        stored = {name: tensor.shape for name, tensor in self.weights.items()}
        for name, tensor in self.projection.items():
            stored[name] = tensor.shape
            own = f"projectors.{projector}.{name.removeprefix(PROJECTION)}"
            shapes[name] = tuple(expected[own])
        return weight_mismatches(
            {self._source_name(name): shape for name, shape in stored.items()},
            {self._source_name(name): shape for name, shape in shapes.items()},
        )

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights of graph encoder and Q-Former under their own names.

        Raises:
            WeightsError: If a weight is not finite.
        """
        for published, own in self.names.items():
            tensor = self._validated(published, self.weights[published])
            yield f"molecule_encoder.{own}", tensor[0] if published == QUERIES else tensor

    def projector_weights(self, shape: Sequence[int]) -> dict[str, Tensor]:
        """Return ``weight`` and ``bias`` of the projection, newly initialized if the file lacks it.

        Args:
            shape: Shape of the weight: width of the language model, width of the Q-Former.

        Raises:
            WeightsError: If a weight is not finite.
        """
        if self.projection:
            return {
                name.removeprefix(PROJECTION): self._validated(name, tensor)
                for name, tensor in self.projection.items()
            }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(PROJECTION_SEED)
            layer = nn.Linear(shape[1], shape[0])
            initialize_molecule_weights(layer)
        return {name: tensor.detach() for name, tensor in layer.state_dict().items()}

    def _validated(self, name: str, tensor: Tensor) -> Tensor:
        source = self.graph_file if name in self.filled else self.path
        return validated_tensor(self._source_name(name), tensor, source).contiguous()

    def _source_name(self, name: str) -> str:
        """Return a weight's full name in its source file."""
        if name in self.filled:
            return name.removeprefix(GRAPH_ENCODER)
        return f"{self.prefix}{name}"


def extract_encoder(checkpoint: LightningCheckpoint, graph_file: Path | None) -> PublishedEncoder:
    """Extract the molecule encoder from a Lightning checkpoint.

    Args:
        checkpoint: Lightning checkpoint.
        graph_file: Plain state dict of the graph encoder, which supplies only the weights that
            the checkpoint lacks.

    Raises:
        WeightsError: If ``graph_file`` cannot be read or belongs to a different encoder.
    """
    weights = checkpoint.weights
    encoder = PublishedEncoder(
        checkpoint.path,
        weights.prefix,
        dict(weights.encoder),
        dict(weights.projection),
        infer_layout(weights.encoder),
    )
    if graph_file is not None:
        _fill_graph_encoder(encoder, graph_file)
    return encoder


def _fill_graph_encoder(encoder: PublishedEncoder, graph_file: Path) -> None:
    """Add the missing weights of the graph encoder from a plain state dict."""
    graph = {
        f"{GRAPH_ENCODER}{name}": tensor for name, tensor in read_state_dict(graph_file).items()
    }
    # MolCA does not save a frozen graph encoder; its layers are then counted in the other file.
    if not any(name.startswith(GRAPH_ENCODER) for name in encoder.weights):
        encoder.layout = replace(encoder.layout, graph_layers=infer_layout(graph).graph_layers)
    _check_graph_weights(graph, encoder, graph_file)
    encoder.filled = [
        name for name in encoder.names if name in graph and name not in encoder.weights
    ]
    encoder.weights.update({name: graph[name] for name in encoder.filled})
    encoder.graph_file = graph_file


def _check_graph_weights(
    graph: Mapping[str, Tensor], encoder: PublishedEncoder, path: Path
) -> None:
    """Raise `WeightsError` unless a graph encoder has the same names and shapes as another."""
    names = encoder.names
    stored = {name.removeprefix(GRAPH_ENCODER): tensor.shape for name, tensor in graph.items()}
    expected = {
        name.removeprefix(GRAPH_ENCODER): (
            encoder.weights[name].shape if name in encoder.weights else tensor.shape
        )
        for name, tensor in graph.items()
        if name in names
    }
    if lines := weight_mismatches(stored, expected):
        raise WeightsError(summarize_mismatches(path, lines), lines)
