"""`MoltcModel` on transformers: for training, and as the independent reference for generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.beam_search import Hypothesis
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.decoding import Decoder, Greedy, Processor, beam_search, greedy
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.projector import ProjectorBank
from moltc_vllm.tasks import Limits


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

    def encode_molecules(
        self, molecules: BatchMolGraph, projector: Tensor, which: Tensor | None = None
    ) -> Tensor:
        """Molecule tokens in the language model's width.

        Args:
            molecules: Graphs of M molecules.
            projector: Projector number of each place, ``[B]`` integers.
            which: Molecule at each place, ``[B]`` integers; default: the molecules in their order.

        Returns:
            ``[B, num_queries, hidden]``.
        """
        tokens = self.molecule_encoder(molecules)
        if which is not None:
            tokens = tokens.index_select(0, which)
        return self.projectors(tokens, projector)

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
        if molecules is None or projector is None:
            return self.splice(input_ids, None)
        return self.splice(input_ids, self.encode_molecules(molecules, projector))

    def splice(self, input_ids: Tensor, tokens: Tensor | None) -> Tensor:
        """Token embeddings with molecule tokens in their places; as `embed`.

        Args:
            input_ids: ``[B, T]``.
            tokens: Of every placed molecule, ``[places, num_queries, hidden]``.
        """
        embeds = self.get_input_embeddings()(input_ids)
        places = input_ids.eq(self.config.molecule_token_id)
        found = int(places.sum())
        count = 0 if tokens is None else len(tokens)
        queries = self.config.qformer_config.num_queries
        if found != count * queries:
            raise ValueError(
                f"{found} placeholder tokens for {count} molecules of {queries} tokens each"
            )
        if tokens is None:
            return embeds
        return embeds.masked_scatter(places[..., None], tokens.flatten(0, 1).to(embeds.dtype))

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
        if self.config.mask_molecule_token:
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
        min_new_tokens: int = 0,
        eos_token_id: int | None = None,
        logits_processor: Sequence[Processor] = (),
    ) -> Greedy:
        """Continue prompts greedily.

        Args:
            input_ids: ``[B, T]``, padded on the left. Padded on the right, the first token is
                predicted from the last pad, as the published model does (`prepare`, `pad_query`).
            attention_mask: ``[B, T]``, 0 on padding.
            molecules: Graphs of all molecules, in prompt order.
            projector: Projector number of each molecule.
            max_new_tokens: Upper bound.
            min_new_tokens: The stop token is not among the first so many.
            eos_token_id: Stop token; default the configuration's. Negative: never stop.
            logits_processor: Further constraints.
        """
        decoder = self._decoder(input_ids, attention_mask, molecules, projector)
        limits = Limits(max_new_tokens, min_new_tokens)
        return greedy(decoder, limits, self._stop(eos_token_id), logits_processor)

    @torch.inference_mode()
    def beam_search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        molecules: BatchMolGraph | None = None,
        projector: Tensor | None = None,
        *,
        width: int = 5,
        limits: Limits = Limits(64),  # noqa: B008 (immutable)
        eos_token_id: int | None = None,
    ) -> list[list[Hypothesis]]:
        """Search for the likeliest answers; arguments as of `generate`.

        Returns:
            For each prompt up to ``width`` answers, best first.
        """
        decoder = self._decoder(input_ids, attention_mask, molecules, projector)
        return beam_search(decoder, width, limits, self._stop(eos_token_id))

    def _decoder(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        molecules: BatchMolGraph | None,
        projector: Tensor | None,
    ) -> Decoder:
        return Decoder(
            self.language_model,
            self.embed(input_ids, molecules, projector),
            attention_mask,
            forbidden=self.config.molecule_token_id if self.config.mask_molecule_token else None,
        )

    def _stop(self, eos_token_id: int | None) -> int | None:
        eos = self.config.text_config.eos_token_id if eos_token_id is None else eos_token_id
        return eos if eos is not None and eos >= 0 else None
