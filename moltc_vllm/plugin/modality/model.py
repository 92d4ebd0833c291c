"""The model that vLLM runs: our molecule modules in front of vLLM's language model."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, get_args

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import (
    MultiModalEmbeddings,
    SupportsLoRA,
    SupportsMultiModal,
    SupportsPP,
)
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from moltc_vllm.chem import packed_of
from moltc_vllm.models.batch import BatchMolGraph, split_by_atoms
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.projector import ProjectorBank
from moltc_vllm.plugin.metrics import (
    ENCODER_CACHE_HITS,
    ENCODER_RUNS,
    ENCODER_SECONDS,
    MOLECULES_ENCODED,
)
from moltc_vllm.plugin.modality.encoder_cache import EncoderCache
from moltc_vllm.plugin.modality.molecules import MODALITY
from moltc_vllm.plugin.modality.processor import (
    GRAPH,
    MoleculeDummyInputs,
    MoleculeProcessingInfo,
    MoleculeProcessor,
)
from moltc_vllm.plugin.modality.serialization import unpack_molecule
from moltc_vllm.plugin.modality.shared_encoder_cache import SharedEncoderCache

_CACHE_SETTING = "moltc_encoder_cache_mb"
_CACHE_MB = 64.0  # 5,461 molecules of the published encoder in half precision
_ATOMS = 65_536  # of one run of the encoder: a step may bring many large molecules
_SHARED_SETTING, _SHARED_SIZE = "moltc_shared_cache", "moltc_shared_cache_mb"
_SHARED_MB = 256.0


@MULTIMODAL_REGISTRY.register_processor(
    MoleculeProcessor, info=MoleculeProcessingInfo, dummy_inputs=MoleculeDummyInputs
)
class MoltcForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """Molecule encoder and projectors from `moltc_vllm.models`, language model from vLLM.

    ``--additional-config '{"moltc_encoder_cache_mb": 64}'`` sets how much is kept of molecules
    that were encoded before. With ``{"moltc_shared_cache": "/dev/shm/NAME"}`` all engines of this
    machine have them in common (``"moltc_shared_cache_mb"``: 256).
    """

    # Adapters trained with PEFT on the bare language model lack our prefix.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        }
    )
    packed_modules_mapping = {  # noqa: RUF012 (vLLM's own spelling)
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """The placeholder of one molecule."""
        if modality == MODALITY:
            return "<mol>"
        raise ValueError(f"{modality!r} is not supported, only {MODALITY!r}")

    molecule_encoder: MoleculeEncoder
    projectors: ProjectorBank

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: MoltcConfig = vllm_config.model_config.hf_config
        self.config = config
        with self._mark_tower_model(vllm_config, MODALITY):  # type: ignore[operator]
            self.molecule_encoder = MoleculeEncoder(config)
            self.projectors = ProjectorBank(config)
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
            )
        extra = vllm_config.additional_config
        settings = extra if isinstance(extra, dict) else {}
        self.encoded = EncoderCache(int(float(settings.get(_CACHE_SETTING, _CACHE_MB)) * 1e6))
        self.shared: SharedEncoderCache | None = None
        if folder := settings.get(_SHARED_SETTING):
            size_mb = float(settings.get(_SHARED_SIZE, _SHARED_MB))
            self.shared = SharedEncoderCache(folder, size_mb)
        self._kernels_used = False
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> MultiModalEmbeddings:
        """Encode the molecules of one scheduler step as one ragged batch.

        Returns:
            ``[molecules, num_queries, hidden]``, empty where the step has none.
        """
        if kwargs.get(GRAPH) is None:
            return []
        begin = time.perf_counter()
        molecules = [unpack_molecule(row) for row in kwargs[GRAPH]]
        identities = [one.identity for one in molecules]
        device = self.molecule_encoder.qformer.queries.device
        if device.type == "cuda" and not self._kernels_used:
            # In vLLM's memory profile, which has only the largest molecules, not while users wait.
            self._kernels_used = True
            self.use_each_kernel()

        encoded = runs = 0

        def encode(places: list[int]) -> Tensor:
            nonlocal encoded, runs
            encoded += len(places)
            found = []
            for some in split_by_atoms([molecules[place].graph() for place in places], _ATOMS):
                found.append(self.molecule_encoder(BatchMolGraph.from_molecules(some, device)))
                runs += 1
            return torch.cat(found) if len(found) > 1 else found[0]

        def share(places: list[int]) -> Tensor:
            if self.shared is None:
                return encode(places)
            names = [identities[place] for place in places]
            return self.shared.fetch(
                names,
                lambda missing: encode([places[place] for place in missing]),
                device,
            )

        encodings = self.encoded.fetch(identities, share)
        # On the host, where it is decided which projectors run.
        tokens = self.projectors(encodings, torch.tensor([one.projector for one in molecules]))
        ENCODER_RUNS.inc(runs)
        MOLECULES_ENCODED.inc(encoded)
        ENCODER_CACHE_HITS.inc(len(identities) - encoded)
        ENCODER_SECONDS.inc(time.perf_counter() - begin)
        return tokens

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor | IntermediateTensors:
        """Hidden states of the language model."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(
            input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds
        )

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits; the placeholder is never an answer, unless the configuration leaves it."""
        logits = self.language_model.compute_logits(hidden_states)
        if logits is not None and self.config.mask_molecule_token:
            logits[..., self.config.molecule_token_id] = float("-inf")
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint folder's weights, strictly.

        Raises:
            ValueError: If a weight is superfluous, or one of the molecule side is missing (vLLM
                checks parameters itself, but not batch norm's statistics).
        """
        seen: set[str] = set()

        def watched() -> Iterable[tuple[str, Tensor]]:
            for name, tensor in weights:
                seen.add(name)
                yield name, tensor

        loaded = AutoWeightsLoader(self).load_weights(watched())
        expected = {
            f"{name}.{key}"
            for name in ("molecule_encoder", "projectors")
            for key in getattr(self, name).state_dict()
        }
        missing = sorted(expected - seen)
        if missing:
            raise ValueError(f"missing weight {', '.join(missing[:5])}")
        # vLLM writes into the parameters: what was made of the old ones goes, also when weights
        # are loaded again while the server runs.
        self.molecule_encoder.graph_encoder.fold()
        self.encoded.clear()
        if self.shared is not None:
            self.shared.use(self.molecule_encoder.state_dict())
        return loaded

    def use_each_kernel(self) -> None:
        """Encode a molecule of each size that has kernels of its own: Triton compiles them then."""
        from moltc_kernels.gin_stack.fused import TILE_ATOMS, Tiles  # needs Triton

        device = self.molecule_encoder.qformer.queries.device
        for tiles in get_args(Tiles):
            chain = packed_of("C" * (tiles * TILE_ATOMS))
            self.molecule_encoder(BatchMolGraph.from_molecules([chain], device))

    def get_mm_mapping(self) -> MultiModelKeys:
        """Names of the parts, for LoRA."""
        return MultiModelKeys.from_string_field(
            language_model="language_model",
            connector="projectors",
            tower_model="molecule_encoder",
        )
