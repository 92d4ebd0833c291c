"""`MoltcModel` on transformers: the model that is trained, and the reference for vLLM's answers."""

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
from moltc_vllm.models.decoding import (
    GreedyOutput,
    IncrementalDecoder,
    LogitsProcessor,
    beam_search,
    greedy_search,
)
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.projector import ProjectorBank
from moltc_vllm.tasks import GenerationLimits


class MoltcModel(PreTrainedModel):
    """Molecule encoder, projectors and language model in one module.

    The state dict has the keys of the checkpoint: ``molecule_encoder.*``, ``projectors.*`` and
    ``language_model.*``.

    Source: MolTC (Fang et al. 2024), section 3.1.

    Args:
        config: Configuration of the model.
        language_model: Causal language model to use; default: a new one from ``text_config``.
    """

    config_class = MoltcConfig
    config: MoltcConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["QFormerLayer", "GINLayer"]  # noqa: RUF012 (transformers expects a list)

    def __init__(self, config: MoltcConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.molecule_encoder = MoleculeEncoder(config)
        self.projectors = ProjectorBank(config)
        self.language_model = language_model or AutoModelForCausalLM.from_config(config.text_config)
        # Callers of `language_model.generate` pass every setting; defaults of the pretrained
        # language model must not change the result.
        self.language_model.generation_config = GenerationConfig()

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def encode_molecules(
        self,
        molecules: BatchMolGraph,
        projector: Tensor,
        molecule_index: Tensor | None = None,
    ) -> Tensor:
        """Encode molecules to tokens in the language model's width.

        A molecule that occurs P times, possibly in different roles, is encoded once.

        Args:
            molecules: Graphs of M molecules.
            projector: ``[P]`` integers, projector index of each occurrence.
            molecule_index: ``[P]`` integers, molecule of each occurrence; default: each molecule
                occurs once, in order.

        Returns:
            ``[P, Q, H]``.
        """
        tokens = self.molecule_encoder(molecules)  # [M, Q, D]
        if molecule_index is not None:
            tokens = tokens.index_select(0, molecule_index)  # [P, Q, D]
        return self.projectors(tokens, projector)

    def embed(
        self, input_ids: Tensor, molecules: BatchMolGraph | None, projector: Tensor | None
    ) -> Tensor:
        """Embed tokens, with molecule tokens in place of the placeholders.

        Args:
            input_ids: ``[B, T]`` ids in which each molecule is ``num_queries`` placeholders.
            molecules: Graphs of all molecules, in the order of their placeholders, row by row.
            projector: ``[M]`` integers, projector index of each molecule.

        Returns:
            ``[B, T, H]``.

        Raises:
            ValueError: If the number of placeholders does not fit the number of molecules.
        """
        if molecules is None or projector is None:
            return self.merge_molecule_tokens(input_ids, None)
        return self.merge_molecule_tokens(input_ids, self.encode_molecules(molecules, projector))

    def merge_molecule_tokens(self, input_ids: Tensor, tokens: Tensor | None) -> Tensor:
        """Embed tokens, with already encoded molecules in place of the placeholders.

        Args:
            input_ids: ``[B, T]`` ids in which each molecule is ``num_queries`` placeholders.
            tokens: ``[P, Q, H]`` molecule tokens in the order of their placeholders; ``None``
                without molecules.

        Returns:
            ``[B, T, H]``.

        Raises:
            ValueError: If the number of placeholders does not fit the number of molecules.
        """
        embeds = self.get_input_embeddings()(input_ids)  # [B, T, H]
        is_placeholder = input_ids.eq(self.config.molecule_token_id)  # [B, T]
        placeholders = int(is_placeholder.sum())
        molecules = 0 if tokens is None else len(tokens)
        queries = self.config.qformer_config.num_queries
        if placeholders != molecules * queries:
            raise ValueError(
                f"{placeholders} placeholder tokens for {molecules} molecules of {queries} tokens "
                "each"
            )
        if tokens is None:
            return embeds
        return embeds.masked_scatter(
            is_placeholder[..., None], tokens.flatten(0, 1).to(embeds.dtype)
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        molecules: BatchMolGraph | None = None,
        projector: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute logits, and the loss if labels are given.

        Args:
            input_ids: ``[B, T]`` ids, as in `embed`.
            attention_mask: ``[B, T]``, 0 on padding.
            molecules: Graphs of all molecules, as in `embed`.
            projector: ``[M]`` integers, projector index of each molecule.
            labels: ``[B, T]`` target ids; -100 is ignored.
            **kwargs: Further arguments of the language model.

        Returns:
            Output of the language model, with ``logits [B, T, V]`` and, given labels, a scalar
            ``loss``.
        """
        out = self.language_model(
            inputs_embeds=self.embed(input_ids, molecules, projector),
            attention_mask=attention_mask,
            **kwargs,
        )
        if self.config.mask_molecule_token:
            # The placeholder is never an answer; the vLLM model masks it in the same way.
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
        logits_processor: Sequence[LogitsProcessor] = (),
    ) -> GreedyOutput:
        """Continue prompts greedily.

        Args:
            input_ids: ``[B, T]`` ids padded on the left. Padded on the right, the first token is
                predicted from the last pad, as in the published model; see `prepare_inputs`.
            attention_mask: ``[B, T]``, 0 on padding.
            molecules: Graphs of all molecules, as in `embed`.
            projector: ``[M]`` integers, projector index of each molecule.
            max_new_tokens: Maximum number of new tokens.
            min_new_tokens: Number of new tokens before the stop token is allowed.
            eos_token_id: Id of the stop token; default: the language model's. With a negative
                value, generation ends only at ``max_new_tokens``.
            logits_processor: Functions that mask logits, applied in order.
        """
        decoder = self._decoder(input_ids, attention_mask, molecules, projector)
        limits = GenerationLimits(max_new_tokens, min_new_tokens)
        return greedy_search(decoder, limits, self._stop(eos_token_id), logits_processor)

    @torch.inference_mode()
    def beam_search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        molecules: BatchMolGraph | None = None,
        projector: Tensor | None = None,
        *,
        width: int = 5,
        limits: GenerationLimits = GenerationLimits(64),  # noqa: B008 (immutable)
        eos_token_id: int | None = None,
    ) -> list[list[Hypothesis]]:
        """Search for the most probable answers.

        Args:
            input_ids: ``[B, T]`` ids, as in `generate`.
            attention_mask: ``[B, T]``, 0 on padding.
            molecules: Graphs of all molecules, as in `embed`.
            projector: ``[M]`` integers, projector index of each molecule.
            width: Number of beams.
            limits: Minimum and maximum length of an answer.
            eos_token_id: Id of the stop token, as in `generate`.

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
    ) -> IncrementalDecoder:
        masks_placeholder = self.config.mask_molecule_token
        return IncrementalDecoder(
            self.language_model,
            self.embed(input_ids, molecules, projector),
            attention_mask,
            suppressed_token=self.config.molecule_token_id if masks_placeholder else None,
        )

    def _stop(self, eos_token_id: int | None) -> int | None:
        stop = self.config.text_config.eos_token_id if eos_token_id is None else eos_token_id
        return stop if stop is not None and stop >= 0 else None
