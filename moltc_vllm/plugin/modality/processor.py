"""vLLM's multimodal processor for molecules: canonical SMILES to packed graphs."""

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

from moltc_vllm.chem import packed_of
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.plugin.modality.molecules import MODALITY, EncoderInput, MoleculeDataParser
from moltc_vllm.plugin.modality.processor_cache import Processed, ProcessorCache
from moltc_vllm.plugin.modality.serialization import pack_molecule

GRAPH = "molecule_graph"
"""Argument of the model: one row of bytes for each molecule, see `moltc_vllm.plugin.modality.serialization`."""


class MoleculeProcessingInfo(BaseProcessingInfo):
    """Counts and limits of the molecule modality."""

    def get_hf_config(self) -> MoltcConfig:
        """The checkpoint's configuration."""
        return self.ctx.get_hf_config(MoltcConfig)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Most molecules in a prompt."""
        return {MODALITY: self.get_hf_config().max_molecules}

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Tokens of one molecule; the same for each."""
        return {MODALITY: self.get_hf_config().qformer_config.num_queries}

    def get_data_parser(self) -> MoleculeDataParser:
        """Parser of ``multi_modal_data``."""
        return MoleculeDataParser(
            self.get_hf_config(), expected_hidden_size=self._get_expected_hidden_size()
        )


class MoleculeDummyInputs(BaseDummyInputsBuilder[MoleculeProcessingInfo]):
    """The largest inputs, for vLLM's memory profile."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """One placeholder per molecule."""
        return self.info.get_hf_config().molecule_token * mm_counts.get(MODALITY, 0)

    def get_dummy_mm_data(
        self,
        seq_len: int,
        mm_counts: Mapping[str, int],
        mm_options: MultiModalDummyOptions,
    ) -> MultiModalDataDict:
        """Chains of the largest size."""
        config = self.info.get_hf_config()
        chain = EncoderInput("C" * min(config.max_atoms, config.max_smiles_characters), 0)
        return {MODALITY: [chain] * mm_counts.get(MODALITY, 0)}


class MoleculeProcessor(BaseMultiModalProcessor[MoleculeProcessingInfo]):
    """Packs the graphs of molecules, and puts pairs of known ones together.

    vLLM's own way costs half a millisecond for each prompt, more than a small model's answer to it,
    and nearly all of it is for molecules that were in prompts before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.info.get_hf_config()
        self._placeholder = config.molecule_token_id
        self._queries = config.qformer_config.num_queries
        self.known = ProcessorCache()

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        """As vLLM's own; from what is known, if that is all there is to it."""
        plain = (
            inputs.mm_data_items.keys() == {MODALITY}
            and not inputs.mm_uuid_items
            and not inputs.hf_processor_mm_kwargs
            and not inputs.media_io_kwargs
            # Other caches decide whether an item's data are sent.
            and isinstance(inputs.cache, MultiModalProcessorOnlyCache | None)
            # Sent in shared memory, each tensor that is kept would keep a file open.
            and self.info.ctx.get_mm_config().mm_tensor_ipc != "torch_shm"
        )
        if not plain:
            return super().apply(inputs, timing_ctx)
        molecules: list[EncoderInput] = inputs.mm_data_items[MODALITY].get_all()
        found = self.known.find(molecules)
        if found is None:
            processed = super().apply(inputs, timing_ctx)
            names, items = (processed[part][MODALITY] for part in ("mm_hashes", "mm_kwargs"))
            made = zip(molecules, map(Processed, names, items), strict=True)
            self.known.keep(one for one in made if one[1].item is not None)
            return processed
        tokens: list[int] = []
        ranges = []
        for token in inputs.prompt:
            if token == self._placeholder:
                ranges.append(PlaceholderRange(offset=len(tokens), length=self._queries))
                tokens += [token] * self._queries
            else:
                tokens.append(token)
        if len(ranges) != len(molecules):
            return super().apply(inputs, timing_ctx)  # it says what is wrong
        return mm_input(
            prompt_token_ids=tokens,
            mm_kwargs=MultiModalKwargsItems({MODALITY: [one.item for one in found]}),
            mm_hashes={MODALITY: [one.name for one in found]},
            mm_placeholders={MODALITY: ranges},
        )

    def forget(self) -> None:
        """Process every molecule again."""
        self.known.clear()

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        molecules: list[EncoderInput] = hf_data["molecules"]
        rows = [pack_molecule(one.key, one.projector, packed_of(one.key)) for one in molecules]
        return BatchFeature({GRAPH: rows})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        # The model plans on the host with these, and takes few of them to the device.
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
                target=[self._placeholder],
                replacement=[self._placeholder] * self._queries,
            )
        ]
