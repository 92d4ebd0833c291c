"""Graphs in, molecule tokens out: the part of the model that is the same for every task."""

from __future__ import annotations

from torch import Tensor, nn

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.qformer import QFormer


class MoleculeEncoder(nn.Module):
    """Graph encoder and Q-Former; knows nothing of roles, tasks or language models."""

    def __init__(self, config: MoltcConfig) -> None:
        super().__init__()
        self.graph_encoder = GraphEncoder(config.graph_encoder_config)
        self.qformer = QFormer(config.qformer_config, config.graph_encoder_config.hidden_size)
        found = self.qformer.queries.shape
        self.skip = (
            nn.Linear(config.graph_encoder_config.hidden_size, found.numel())
            if config.qformer_config.pooled_skip
            else None
        )

    def forward(self, batch: BatchMolGraph) -> Tensor:
        """Read each molecule of the batch into ``[B, num_queries, hidden]``."""
        tokens, offsets = self.graph_encoder(batch)
        found = self.qformer(tokens, offsets)
        if self.skip is not None:
            found = found + self.skip(tokens[offsets[:-1]]).view_as(found)
        return found


def initialize_molecule_weights(module: nn.Module, std: float = 0.02) -> None:
    """Draw the initial weights of encoder and projectors, in place.

    Linear layers and queries are normal with ``std`` (BERT's by default), the graph encoder's
    embeddings Xavier-uniform (Hu et al.'s), norms the identity.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, QFormer):
            nn.init.normal_(part.queries, std=std)
