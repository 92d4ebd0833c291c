"""Q-Former: learned queries that attend to a molecule's atoms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moltc_kernels.cross_attention import KeyValue, cross_attention
from moltc_vllm.models.config import QFormerConfig

_CPU_CHUNK_SIZE = 128
"""Number of molecules processed together on CPU, so that hidden states stay in the CPU cache."""


class Attention(nn.Module):
    """Multi-head attention of the queries, followed by dropout, residual and layer norm.

    Args:
        config: Q-Former sizes.
        key_size: Width of the tokens that the queries attend to.
    """

    def __init__(self, config: QFormerConfig, key_size: int) -> None:
        super().__init__()
        dim = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(key_size, dim)
        self.value = nn.Linear(key_size, dim)
        self.output = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def _split_heads(self, x: Tensor) -> Tensor:  # [..., D] -> [..., heads, D / heads]
        return x.unflatten(-1, (self.heads, -1))

    def _add_and_norm(self, attended: Tensor, residual: Tensor) -> Tensor:
        out = self.output(attended.flatten(-2))  # [B, Q, D]
        return self.norm(F.dropout(out, self.dropout, self.training) + residual)

    @property
    def _attention_dropout(self) -> float:
        return self.dropout if self.training else 0.0


class SelfAttention(Attention):
    """Attention among the queries of one molecule."""

    def forward(self, h: Tensor) -> Tensor:  # [B, Q, D] -> [B, Q, D]
        """Attend without a mask, because every query is real."""
        q, k, v = (
            self._split_heads(layer(h)).transpose(1, 2)  # [B, heads, Q, D / heads]
            for layer in (self.query, self.key, self.value)
        )
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self._attention_dropout)
        return self._add_and_norm(out.transpose(1, 2), h)


class CrossAttention(Attention):
    """Attention of each molecule's queries to that molecule's tokens only."""

    def forward(self, h: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Attend to the tokens of a ragged batch.

        Args:
            h: ``[B, Q, D]`` queries, or ``[1, Q, D]`` when all molecules share them.
            tokens: ``[T, key_size]`` tokens of all molecules.
            offsets: ``[B + 1]`` index of each molecule's first token.

        Returns:
            ``[B, Q, D]``.
        """
        key_value = KeyValue(self.key.weight, self.key.bias, self.value.weight, self.value.bias)
        query = self._split_heads(self.query(h))  # [B or 1, Q, heads, D / heads]
        query = query.expand(offsets.shape[0] - 1, -1, -1, -1)
        return self._add_and_norm(cross_attention(query, tokens, offsets, key_value), h)


class QFormerLayer(nn.Module):
    """Self-attention, optional cross-attention and feed-forward, each with a post-layer norm.

    Args:
        config: Q-Former sizes.
        key_size: Width of the tokens that the queries attend to.
        has_cross_attention: Whether the layer attends to the tokens.
    """

    def __init__(self, config: QFormerConfig, key_size: int, has_cross_attention: bool) -> None:
        super().__init__()
        dim = config.hidden_size
        self.self_attention = SelfAttention(config, dim)
        self.cross_attention = CrossAttention(config, key_size) if has_cross_attention else None
        self.up = nn.Linear(dim, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, dim)
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, h: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Update the queries; arguments and result as in `CrossAttention.forward`."""
        h = self.self_attention(h)
        if self.cross_attention is not None:
            h = self.cross_attention(h, tokens, offsets)
        out = self.down(F.gelu(self.up(h)))  # [B, Q, D]
        return self.norm(F.dropout(out, self.dropout, self.training) + h)


class QFormer(nn.Module):
    """Transformer that reduces each molecule to ``num_queries`` tokens.

    Source: BLIP-2 (Li et al. 2023), section 3.1, the query branch only; MolTC (Fang et al. 2024),
    section 3.1.

    Args:
        config: Q-Former sizes.
        key_size: Width of the graph encoder's tokens.
    """

    def __init__(self, config: QFormerConfig, key_size: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.dropout
        self.layers = nn.ModuleList(
            QFormerLayer(
                config,
                key_size,
                has_cross_attention=index % config.cross_attention_frequency == 0,
            )
            for index in range(config.num_layers)
        )

    def forward(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Encode a ragged batch of molecules.

        Args:
            tokens: ``[T, key_size]`` tokens of all molecules.
            offsets: ``[B + 1]`` index of each molecule's first token.

        Returns:
            ``[B, num_queries, hidden_size]``.
        """
        batch_size = offsets.shape[0] - 1
        if batch_size <= _CPU_CHUNK_SIZE or tokens.is_cuda or torch.is_grad_enabled():
            return self._encode(tokens, offsets)
        out = tokens.new_empty(batch_size, *self.queries.shape)
        for start in range(0, batch_size, _CPU_CHUNK_SIZE):
            chunk = offsets[start : start + _CPU_CHUNK_SIZE + 1]
            chunk_tokens = tokens[chunk[0] : chunk[-1]]
            out[start : start + _CPU_CHUNK_SIZE] = self._encode(chunk_tokens, chunk - chunk[0])
        return out

    def _encode(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        # Before the first cross-attention all molecules have the same states, so one copy
        # [1, Q, D] is enough, except in training, where dropout differs between molecules.
        h = F.dropout(self.norm(self.queries), self.dropout, self.training)[None]
        if self.training:
            h = h.expand(offsets.shape[0] - 1, -1, -1)  # [B, Q, D]
        for layer in self.layers:
            h = layer(h, tokens, offsets)
        return h
