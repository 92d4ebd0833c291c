"""`MoltcModel` on transformers: for training, and as the independent reference for generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    SuppressTokensLogitsProcessor,
)

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.projector import ProjectorBank


@dataclass(frozen=True, slots=True)
class Generation:
    """Greedy continuations of a batch of prompts."""

    token_ids: list[list[int]]  # new tokens of each prompt, without the stop token
    logprobs: list[list[float]]  # log-probability of each of these tokens
    first_logprobs: Tensor  # [B, vocabulary]: distribution of the first new token


class MoltcModel(PreTrainedModel):
    """Molecule encoder, projectors and language model in one module.

    Its state dict is the checkpoint's: ``molecule_encoder.*``, ``projectors.*`` and
    ``language_model.*``.
    """

    config_class = MoltcConfig
    config: MoltcConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["QFormerLayer", "GINLayer"]  # noqa: RUF012 (transformers' own spelling)

    def __init__(self, config: MoltcConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.molecule_encoder = MoleculeEncoder(config)
        self.projectors = ProjectorBank(config)
        self.language_model = language_model or AutoModelForCausalLM.from_config(config.text_config)
        # `generate` says everything itself; what it leaves open must not come from here.
        self.language_model.generation_config = GenerationConfig()

    def get_input_embeddings(self) -> torch.nn.Module:
        """The language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def encode_molecules(self, molecules: BatchMolGraph, projector: Tensor) -> Tensor:
        """Molecule tokens in the language model's width.

        Args:
            molecules: Graphs of B molecules.
            projector: Projector number of each, ``[B]`` integers.

        Returns:
            ``[B, num_queries, hidden]``.
        """
        return self.projectors(self.molecule_encoder(molecules), projector)

    def embed(
        self, input_ids: Tensor, molecules: BatchMolGraph | None, projector: Tensor | None
    ) -> Tensor:
        """Token embeddings with the molecules' tokens in their places.

        Args:
            input_ids: ``[B, T]``; every molecule stands as ``num_queries`` placeholder ids, and
                molecules appear in the order of the batch, row by row.
            molecules: Graphs of all molecules of all rows.
            projector: Projector number of each molecule.

        Returns:
            ``[B, T, hidden]``.

        Raises:
            ValueError: If placeholders and molecules differ in number.
        """
        embeds = self.get_input_embeddings()(input_ids)
        places = input_ids.eq(self.config.molecule_token_id)
        found = int(places.sum())
        count = 0 if molecules is None else molecules.num_molecules
        queries = self.config.qformer_config.num_queries
        if found != count * queries:
            raise ValueError(
                f"{found} placeholder tokens for {count} molecules of {queries} tokens each"
            )
        if molecules is None or projector is None:
            return embeds
        tokens = self.encode_molecules(molecules, projector).flatten(0, 1).to(embeds.dtype)
        return embeds.masked_scatter(places[..., None], tokens)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        molecules: BatchMolGraph | None = None,
        projector: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Language-model outputs; ``loss`` too when ``labels [B, T]`` are given (-100: ignored)."""
        out = self.language_model(
            inputs_embeds=self.embed(input_ids, molecules, projector),
            attention_mask=attention_mask,
            **kwargs,
        )
        # The placeholder is never an answer: the engine masks it in the same way.
        out.logits[..., self.config.molecule_token_id] = float("-inf")
        if labels is not None:
            out.loss = F.cross_entropy(
                out.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
            )
        return out

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        molecules: BatchMolGraph | None = None,
        projector: Tensor | None = None,
        *,
        max_new_tokens: int = 64,
        eos_token_id: int | None = None,
        logits_processor: LogitsProcessorList | None = None,
    ) -> Generation:
        """Continue left-padded prompts greedily.

        Args:
            input_ids: ``[B, T]``, padded on the left.
            attention_mask: ``[B, T]``, 0 on padding.
            molecules: Graphs of all molecules, in prompt order.
            projector: Projector number of each molecule.
            max_new_tokens: Upper bound.
            eos_token_id: Stop token; default the configuration's. Negative: never stop.
            logits_processor: Further constraints.
        """
        text_config = self.config.text_config
        eos = text_config.eos_token_id if eos_token_id is None else eos_token_id
        processors = LogitsProcessorList(logits_processor or [])
        processors.append(
            SuppressTokensLogitsProcessor([self.config.molecule_token_id], device=self.device)
        )
        out = self.language_model.generate(
            inputs_embeds=self.embed(input_ids, molecules, projector),
            attention_mask=attention_mask,
            logits_processor=processors,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=eos if eos is not None and eos >= 0 else None,
                pad_token_id=text_config.pad_token_id or 0,
                return_dict_in_generate=True,
                output_scores=True,
            ),
        )
        first = out.scores[0].float().log_softmax(-1)
        chosen = torch.stack(
            [
                scores.float().log_softmax(-1).gather(1, out.sequences[:, step, None])[:, 0]
                for step, scores in enumerate(out.scores)
            ],
            dim=1,
        )
        ids = [_until(row, eos) for row in out.sequences.tolist()]
        logprobs = [row[: len(ids[i])] for i, row in enumerate(chosen.tolist())]
        return Generation(ids, logprobs, first)


def _until(ids: list[int], stop: int | None) -> list[int]:
    return ids[: ids.index(stop)] if stop in ids else ids
