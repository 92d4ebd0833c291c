"""The model in plain torch, shared by training and serving; it imports neither vLLM nor Ray."""

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.checkpoint import (
    CheckpointError,
    load_config,
    load_model,
    load_tokenizer,
    save_model,
)
from moltc_vllm.models.config import GraphEncoderConfig, MoltcConfig, QFormerConfig
from moltc_vllm.models.decoding import GreedyOutput
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.presets import PRESETS, create_checkpoint
from moltc_vllm.models.projector import ProjectorBank, ProjectorError, projector_index
from moltc_vllm.models.prompt import Prompt, prepare, prepare_inputs
from moltc_vllm.models.tokenizer import MoltcTokenizer

__all__ = [
    "PRESETS",
    "BatchMolGraph",
    "CheckpointError",
    "GraphEncoderConfig",
    "GreedyOutput",
    "MoleculeEncoder",
    "MoltcConfig",
    "MoltcModel",
    "MoltcTokenizer",
    "ProjectorBank",
    "ProjectorError",
    "Prompt",
    "QFormerConfig",
    "create_checkpoint",
    "load_config",
    "load_model",
    "load_tokenizer",
    "prepare",
    "prepare_inputs",
    "projector_index",
    "save_model",
]
