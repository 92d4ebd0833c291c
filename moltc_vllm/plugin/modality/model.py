"""Model class for vLLM: molecule encoder and projectors in front of vLLM's language model."""

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

from moltc_vllm.chem import PackedMolecule
from moltc_vllm.models.batch import BatchMolGraph, split_by_atoms
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.familiarity import WEIGHT_PREFIX
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.projector import ProjectorBank
from moltc_vllm.models.prompt import encoder_graph_fn
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

# Keys of vLLM's `--additional-config` and their defaults.
_CACHE_MB_KEY = "moltc_encoder_cache_mb"
_CACHE_MB = 64.0  # 5,461 molecules of the published encoder in half precision
_SHARED_CACHE_KEY = "moltc_shared_cache"
_SHARED_CACHE_MB_KEY = "moltc_shared_cache_mb"
_SHARED_CACHE_MB = 256.0

# Limits the encoder's memory in a scheduler step with many large molecules.
_MAX_ATOMS_PER_RUN = 65_536


@MULTIMODAL_REGISTRY.register_processor(
    MoleculeProcessor, info=MoleculeProcessingInfo, dummy_inputs=MoleculeDummyInputs
)
class MoltcForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """Molecule encoder and projectors of `moltc_vllm.models` with a language model of vLLM.

    ``--additional-config`` sets the caches of encoded molecules: ``moltc_encoder_cache_mb`` is the
    size of this engine's cache (64 MB). ``moltc_shared_cache`` is the folder of a cache that all
    engines of this machine share, e.g. ``/dev/shm/NAME``, and ``moltc_shared_cache_mb`` its size
    (256 MB).
    """

    # Adapters that PEFT trained on the language model alone lack the prefix.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        }
    )
    packed_modules_mapping = {  # noqa: RUF012 (vLLM reads it as a plain class attribute)
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """Return the placeholder of one molecule."""
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
        cache_mb = float(settings.get(_CACHE_MB_KEY, _CACHE_MB))
        self.encoder_cache = EncoderCache(int(cache_mb * 1e6))
        self.shared_encoder_cache: SharedEncoderCache | None = None
        if folder := settings.get(_SHARED_CACHE_KEY):
            shared_cache_mb = float(settings.get(_SHARED_CACHE_MB_KEY, _SHARED_CACHE_MB))
            self.shared_encoder_cache = SharedEncoderCache(folder, shared_cache_mb)
        self._are_kernels_warm = False
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> MultiModalEmbeddings:
        """Encode and project the molecules of one scheduler step as one batch.

        Returns:
            ``[molecules, num_queries, hidden]``; empty for a step without molecules.
        """
        if kwargs.get(GRAPH) is None:
            return []
        started_at = time.perf_counter()
        molecules = [unpack_molecule(row) for row in kwargs[GRAPH]]
        molecule_ids = [molecule.molecule_id for molecule in molecules]
        device = self._device
        if device.type == "cuda" and not self._are_kernels_warm:
            # vLLM's memory profile, which runs before the first request, has only molecules of
            # the largest size, so the kernels of small molecules are compiled here.
            self._are_kernels_warm = True
            self.warm_up_kernels()

        encoded_count = 0

        def encode(indices: list[int]) -> Tensor:
            nonlocal encoded_count
            encoded_count += len(indices)
            return self._encode([molecules[index].graph() for index in indices])

        def get_shared_or_encode(indices: list[int]) -> Tensor:
            if self.shared_encoder_cache is None:
                return encode(indices)
            return self.shared_encoder_cache.get_or_encode(
                [molecule_ids[index] for index in indices],
                lambda missing: encode([indices[index] for index in missing]),
                device,
            )

        encodings = self.encoder_cache.get_or_encode(molecule_ids, get_shared_or_encode)
        # The indices stay on the host, because the host decides which projectors run.
        projectors = torch.tensor([molecule.projector for molecule in molecules])
        tokens = self.projectors(encodings, projectors)
        ENCODER_CACHE_HITS.inc(len(molecules) - encoded_count)
        ENCODER_SECONDS.inc(time.perf_counter() - started_at)
        return tokens

    def _encode(self, graphs: list[PackedMolecule]) -> Tensor:
        """Encode graphs in as few runs as the limit on atoms per run allows.

        Returns:
            ``[graphs, num_queries, hidden]``.
        """
        batches = split_by_atoms(graphs, _MAX_ATOMS_PER_RUN)
        encodings = [
            self.molecule_encoder(BatchMolGraph.from_molecules(batch, self._device))
            for batch in batches
        ]
        ENCODER_RUNS.inc(len(batches))
        MOLECULES_ENCODED.inc(len(graphs))
        return torch.cat(encodings) if len(encodings) > 1 else encodings[0]

    @property
    def _device(self) -> torch.device:
        return self.molecule_encoder.qformer.queries.device

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor | IntermediateTensors:
        """Return the hidden states of the language model."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(
            input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds
        )

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Return the logits; the placeholder is masked unless the configuration disables that."""
        logits = self.language_model.compute_logits(hidden_states)
        if logits is not None and self.config.mask_molecule_token:
            logits[..., self.config.molecule_token_id] = float("-inf")
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the weights of a checkpoint folder.

        Raises:
            ValueError: If a weight is unexpected, or a parameter or buffer of the molecule modules
                is missing; vLLM itself checks parameters only, not batch norm's statistics.
        """
        names: set[str] = set()

        def record_names() -> Iterable[tuple[str, Tensor]]:
            for name, tensor in weights:
                # vLLM reads every safetensors file of the folder.
                if not name.startswith(WEIGHT_PREFIX):
                    names.add(name)
                    yield name, tensor

        loaded = AutoWeightsLoader(self).load_weights(record_names())
        expected = {
            f"{module}.{key}"
            for module in ("molecule_encoder", "projectors")
            for key in getattr(self, module).state_dict()
        }
        missing = sorted(expected - names)
        if missing:
            raise ValueError(f"missing weight {', '.join(missing[:5])}")
        # Weights may be reloaded while the server runs, so everything computed from the old ones
        # is replaced.
        self.molecule_encoder.graph_encoder.fold()
        self.encoder_cache.clear()
        if self.shared_encoder_cache is not None:
            self.shared_encoder_cache.set_weights(self.molecule_encoder.state_dict())
        return loaded

    def warm_up_kernels(self) -> None:
        """Let Triton compile the kernels of small molecules by encoding one of each tile count."""
        from moltc_kernels.gin_stack.fused import TILE_ATOMS, Tiles  # needs Triton

        encoder_graph = encoder_graph_fn(self.config)
        for tiles in get_args(Tiles):
            chain = encoder_graph("C" * (tiles * TILE_ATOMS))
            self.molecule_encoder(BatchMolGraph.from_molecules([chain], self._device))

    def get_mm_mapping(self) -> MultiModelKeys:
        """Return the names of the submodules for LoRA."""
        return MultiModelKeys.from_string_field(
            language_model="language_model",
            connector="projectors",
            tower_model="molecule_encoder",
        )
