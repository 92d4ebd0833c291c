"""Molecule encoder: molecular graphs in, molecule tokens out."""

from __future__ import annotations

from torch import Tensor, nn

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.qformer import QFormer


class MoleculeEncoder(nn.Module):
    """Graph encoder followed by a Q-Former.

    Its output depends on the molecule alone, not on its role, the task or the language model, so
    that it can be cached by molecule.

    Source: MolTC (Fang et al. 2024), section 3.1.
    """

    def __init__(self, config: MoltcConfig) -> None:
        super().__init__()
        graph_size = config.graph_encoder_config.hidden_size
        self.graph_encoder = GraphEncoder(config.graph_encoder_config)
        self.qformer = QFormer(config.qformer_config, graph_size)
        self.skip = (
            nn.Linear(graph_size, self.qformer.queries.numel())
            if config.qformer_config.pooled_skip
            else None
        )

    def forward(self, batch: BatchMolGraph) -> Tensor:
        """Encode each molecule of the batch.

        Returns:
            ``[B, Q, D]``, with Q queries of width D.
        """
        tokens, offsets = self.graph_encoder(batch)  # [V + B, d], [B + 1]
        queries = self.qformer(tokens, offsets)  # [B, Q, D]
        if self.skip is not None:
            pooled = tokens[offsets[:-1]]  # [B, d]
            queries = queries + self.skip(pooled).view_as(queries)
        return queries


def initialize_molecule_weights(module: nn.Module, std: float = 0.02) -> None:
    """Draw initial weights for an encoder or for projectors, in place.

    Linear layers and queries are normal (as in BERT), embeddings of the graph encoder are
    Xavier-uniform (as in Hu et al. 2020), and norms keep their identity.

    Args:
        module: Module to initialize.
        std: Standard deviation of linear weights and queries.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.xavier_uniform_(part.weight)
            if part.padding_idx is not None:
                nn.init.zeros_(part.weight[part.padding_idx])
        elif isinstance(part, QFormer):
            nn.init.normal_(part.queries, std=std)
