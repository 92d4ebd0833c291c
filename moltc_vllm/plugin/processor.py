"""vLLM's multimodal processor for molecules: canonical SMILES to packed graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchFeature
from vllm.config.multimodal import MultiModalDummyOptions
from vllm.inputs import MultiModalDataDict
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)

from moltc_vllm.chem import PackedMolecule, packed_of
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.plugin.molecules import MODALITY, EncoderInput, MoleculeDataParser

PER_ATOM = ("atoms", "degree")
_PER_BOND = ("source", "bond_code")
_PER_MOLECULE = ("num_atoms", "num_bonds", "projector", "identity")


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
    """Packs the graphs of molecules that vLLM's cache does not have."""

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        molecules: list[EncoderInput] = hf_data["molecules"]
        packed = [packed_of(molecule.key) for molecule in molecules]
        columns = {
            name: _tensor(np.concatenate(arrays))
            for name, arrays in zip(PackedMolecule._fields, zip(*packed, strict=True), strict=True)
        }
        return BatchFeature(
            {
                **columns,
                "num_atoms": torch.tensor([len(one.degree) for one in packed]),
                "num_bonds": torch.tensor([len(one.source) for one in packed]),
                "projector": torch.tensor([molecule.projector for molecule in molecules]),
                "identity": torch.stack([_identity(molecule.key) for molecule in molecules]),
            }
        )

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        none = torch.empty(0, dtype=torch.long)
        num_atoms = hf_inputs.get("num_atoms", none)
        num_bonds = hf_inputs.get("num_bonds", none)
        flat, batched = MultiModalFieldConfig.flat_from_sizes, MultiModalFieldConfig.batched
        return {
            **{name: flat(MODALITY, num_atoms) for name in PER_ATOM},
            **{name: flat(MODALITY, num_bonds) for name in _PER_BOND},
            # The model plans with these on the host; on the device each look would wait for it.
            **{name: batched(MODALITY, keep_on_cpu=True) for name in _PER_MOLECULE},
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        config = self.info.get_hf_config()
        placeholder = config.molecule_token_id
        return [
            PromptReplacement(
                modality=MODALITY,
                target=[placeholder],
                replacement=[placeholder] * config.qformer_config.num_queries,
            )
        ]


def _identity(key: str) -> torch.Tensor:
    """A molecule's name for the worker, ``[2]`` int64: 128 bits of its key's hash."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return torch.frombuffer(bytearray(digest), dtype=torch.int64)


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    # Torch gives numpy's empty arrays a stride of 0, which vLLM's serialiser refuses: a prompt
    # whose molecules have no bonds at all would fail.
    tensor = torch.from_numpy(array)
    return tensor if array.size else torch.empty(tensor.shape, dtype=tensor.dtype)
