"""vLLM multimodal processor that converts canonical SMILES to packed graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchFeature
from vllm.config.multimodal import MultiModalDummyOptions
from vllm.inputs import MultiModalDataDict, MultiModalInput, mm_input
from vllm.multimodal.cache.base import MultiModalProcessorOnlyCache
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
    PromptUpdate,
    TimingContext,
)

from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.prompt import encoder_graph_fn
from moltc_vllm.plugin.modality.molecules import MODALITY, EncoderInput, MoleculeDataParser
from moltc_vllm.plugin.modality.processor_cache import ProcessedMolecule, ProcessorCache
from moltc_vllm.plugin.modality.serialization import pack_molecule

GRAPH = "molecule_graph"
"""Keyword argument of the model: a tensor of bytes for each molecule, see `pack_molecule`."""


class MoleculeProcessingInfo(BaseProcessingInfo):
    """Counts and limits of the molecule modality."""

    def get_hf_config(self) -> MoltcConfig:
        """Return the configuration of the checkpoint."""
        return self.ctx.get_hf_config(MoltcConfig)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Return the maximum number of molecules in a prompt."""
        return {MODALITY: self.get_hf_config().max_molecules}

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Return the number of tokens of a molecule, which is the same for all."""
        return {MODALITY: self.get_hf_config().qformer_config.num_queries}

    def get_data_parser(self) -> MoleculeDataParser:
        """Create the parser of ``multi_modal_data``."""
        return MoleculeDataParser(
            self.get_hf_config(), expected_hidden_size=self._get_expected_hidden_size()
        )


class MoleculeDummyInputs(BaseDummyInputsBuilder[MoleculeProcessingInfo]):
    """Builder of the largest possible inputs for vLLM's memory profile."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """Return one placeholder per molecule."""
        return self.info.get_hf_config().molecule_token * mm_counts.get(MODALITY, 0)

    def get_dummy_mm_data(
        self,
        seq_len: int,
        mm_counts: Mapping[str, int],
        mm_options: MultiModalDummyOptions,
    ) -> MultiModalDataDict:
        """Return carbon chains of the maximum size."""
        config = self.info.get_hf_config()
        chain = EncoderInput("C" * min(config.max_atoms, config.max_smiles_characters), 0)
        return {MODALITY: [chain] * mm_counts.get(MODALITY, 0)}


class MoleculeProcessor(BaseMultiModalProcessor[MoleculeProcessingInfo]):
    """Processor that packs molecule graphs and assembles prompts from cached molecules.

    vLLM's own processing takes half a millisecond per prompt, more than a small model needs for the
    answer, and most molecules of a screen were in earlier prompts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.info.get_hf_config()
        self._placeholder_id = config.molecule_token_id
        self._num_queries = config.qformer_config.num_queries
        self._encoder_graph = encoder_graph_fn(config)
        self.processed_molecules = ProcessorCache()

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        """Process a prompt, from cached molecules alone if possible."""
        if not self._can_use_cache(inputs):
            return super().apply(inputs, timing_ctx)
        molecules: list[EncoderInput] = inputs.mm_data_items[MODALITY].get_all()
        cached = self.processed_molecules.get_all(molecules)
        if cached is None:
            processed = super().apply(inputs, timing_ctx)
            self._add_to_cache(molecules, processed)
            return processed
        tokens, ranges = self._expand_placeholders(inputs.prompt)
        if len(ranges) != len(molecules):
            return super().apply(inputs, timing_ctx)  # raises vLLM's own error
        return mm_input(
            prompt_token_ids=tokens,
            mm_kwargs=MultiModalKwargsItems({MODALITY: [molecule.item for molecule in cached]}),
            mm_hashes={MODALITY: [molecule.mm_hash for molecule in cached]},
            mm_placeholders={MODALITY: ranges},
        )

    def clear_cache(self) -> None:
        """Evict all processed molecules."""
        self.processed_molecules.clear()

    def _can_use_cache(self, inputs: ProcessorInputs) -> bool:
        """Return whether the prompt depends on nothing but its tokens and molecules."""
        return bool(
            inputs.mm_data_items.keys() == {MODALITY}
            and not inputs.mm_uuid_items
            and not inputs.hf_processor_mm_kwargs
            and not inputs.media_io_kwargs
            # Caches of other classes decide whether an item is sent with its data.
            and isinstance(inputs.cache, MultiModalProcessorOnlyCache | None)
            # Each cached tensor in shared memory would keep a file open.
            and self.info.ctx.get_mm_config().mm_tensor_ipc != "torch_shm"
        )

    def _add_to_cache(self, molecules: Sequence[EncoderInput], processed: MultiModalInput) -> None:
        mm_hashes, items = (processed[field][MODALITY] for field in ("mm_hashes", "mm_kwargs"))
        self.processed_molecules.add(
            (molecule, ProcessedMolecule(mm_hash, item))
            for molecule, mm_hash, item in zip(molecules, mm_hashes, items, strict=True)
            if item is not None
        )

    def _expand_placeholders(
        self, prompt: Sequence[int]
    ) -> tuple[list[int], list[PlaceholderRange]]:
        """Repeat each placeholder once per molecule token; return tokens and the ranges."""
        tokens: list[int] = []
        ranges = []
        for token in prompt:
            if token == self._placeholder_id:
                ranges.append(PlaceholderRange(offset=len(tokens), length=self._num_queries))
                tokens += [token] * self._num_queries
            else:
                tokens.append(token)
        return tokens, ranges

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        molecules: list[EncoderInput] = hf_data["molecules"]
        rows = [
            pack_molecule(molecule.key, molecule.projector, self._encoder_graph(molecule.key))
            for molecule in molecules
        ]
        return BatchFeature({GRAPH: rows})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        # The model reads the headers on the host and moves only uncached graphs to the device.
        return {GRAPH: MultiModalFieldConfig.batched(MODALITY, keep_on_cpu=True)}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        return [
            PromptReplacement(
                modality=MODALITY,
                target=[self._placeholder_id],
                replacement=[self._placeholder_id] * self._num_queries,
            )
        ]
