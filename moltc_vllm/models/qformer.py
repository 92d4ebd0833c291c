"""The Q-Former: a few learned queries that read a molecule's atoms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moltc_kernels.cross_attention import KeyValue, cross_attention
from moltc_vllm.models.config import QFormerConfig

_PASS = 128
"""Molecules read at once on CPU: their hidden states stay in the cache."""


class Attention(nn.Module):
    """Multi-head attention of the queries, followed by dropout, residual and layer norm."""

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

    def _split(self, x: Tensor) -> Tensor:  # ... x D -> ... x heads x d
        return x.unflatten(-1, (self.heads, -1))

    def _finish(self, attended: Tensor, residual: Tensor) -> Tensor:
        out = self.output(attended.flatten(-2))
        return self.norm(F.dropout(out, self.dropout, self.training) + residual)

    @property
    def _attention_dropout(self) -> float:
        return self.dropout if self.training else 0.0


class SelfAttention(Attention):
    """Queries of one molecule attend to each other."""

    def forward(self, h: Tensor) -> Tensor:  # B x Q x D -> B x Q x D
        """Attend; no mask, every query is real."""
        q, k, v = (self._split(f(h)).transpose(1, 2) for f in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self._attention_dropout)
        return self._finish(out.transpose(1, 2), h)


class CrossAttention(Attention):
    """Queries of each molecule attend to that molecule's tokens only."""

    def forward(self, h: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Attend to ``tokens [T, key_size]``; ``offsets [B + 1]`` tell whose they are."""
        layers = KeyValue(self.key.weight, self.key.bias, self.value.weight, self.value.bias)
        query = self._split(self.query(h)).expand(offsets.shape[0] - 1, -1, -1, -1)
        return self._finish(cross_attention(query, tokens, offsets, layers), h)


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention where the layer has it, feed-forward; post-norm."""

    def __init__(self, config: QFormerConfig, key_size: int, crosses: bool) -> None:
        super().__init__()
        dim = config.hidden_size
        self.self_attention = SelfAttention(config, dim)
        self.cross_attention = CrossAttention(config, key_size) if crosses else None
        self.up = nn.Linear(dim, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, dim)
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, h: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        """``[B, Q, D]`` in and out; ``h`` may be ``[1, Q, D]``, the same for all molecules."""
        h = self.self_attention(h)
        if self.cross_attention is not None:
            h = self.cross_attention(h, tokens, offsets)
        out = self.down(F.gelu(self.up(h)))
        return self.norm(F.dropout(out, self.dropout, self.training) + h)


class QFormer(nn.Module):
    """Read each molecule into ``num_queries`` tokens.

    Source: BLIP-2 (Li et al. 2023), query branch only; layer norm after each part.
    """

    def __init__(self, config: QFormerConfig, key_size: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.dropout
        every = config.cross_attention_frequency
        self.layers = nn.ModuleList(
            QFormerLayer(config, key_size, crosses=number % every == 0)
            for number in range(config.num_layers)
        )

    def forward(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Read a ragged batch of molecules.

        Args:
            tokens: Tokens of all molecules one after another, ``[T, key_size]``.
            offsets: Where each molecule's tokens begin, ``[B + 1]``.

        Returns:
            ``[B, num_queries, hidden_size]``.
        """
        batch = offsets.shape[0] - 1
        if batch <= _PASS or tokens.is_cuda or torch.is_grad_enabled():
            return self._read(tokens, offsets)
        out = tokens.new_empty(batch, *self.queries.shape)
        for begin in range(0, batch, _PASS):
            own = offsets[begin : begin + _PASS + 1]
            out[begin : begin + _PASS] = self._read(tokens[own[0] : own[-1]], own - own[0])
        return out

    def _read(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        h = F.dropout(self.norm(self.queries), self.dropout, self.training)[None]
        if self.training:  # every molecule has dropout of its own
            h = h.expand(offsets.shape[0] - 1, -1, -1)
        # Otherwise all molecules are still alike: B is 1 until they look at their atoms.
        for layer in self.layers:
            h = layer(h, tokens, offsets)
        return h
