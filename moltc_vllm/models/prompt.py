"""Conversion of prompts to input tensors of `MoltcModel`.

vLLM does not use this module; its multimodal processor is in `moltc_vllm.plugin.modality`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moltc_vllm.chem import (
    MoleculeLimits,
    PackedMolecule,
    as_written_key,
    canonical_key,
    packed_of,
    pair_notes,
)
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.projector import projector_index
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Answer, Task
from moltc_vllm.utils.deprecation import warn_renamed


class Prompt(NamedTuple):
    """A text with one placeholder per molecule.

    Attributes:
        text: Text with placeholders such as ``<mol>``.
        molecules: SMILES of the molecules, in the order of the placeholders.
        task: Name of the task; needed where projectors depend on it.
    """

    text: str
    molecules: Sequence[str]
    task: str | None = None


class ModelInputs(NamedTuple):
    """Arguments of `MoltcModel.forward` and `MoltcModel.generate` for B prompts of M molecules."""

    input_ids: Tensor  # [B, T] int64, padded on one side
    attention_mask: Tensor  # [B, T] int64, 0 on padding
    molecules: BatchMolGraph | None  # M graphs; None without molecules
    projector: Tensor | None  # [M] int64, projector index of each molecule


def molecule_limits(config: MoltcConfig) -> MoleculeLimits:
    """Return the molecule sizes that the checkpoint accepts."""
    return MoleculeLimits(max_atoms=config.max_atoms, max_characters=config.max_smiles_characters)


def encoder_key_fn(config: MoltcConfig) -> Callable[[str], str]:
    """Return a function from SMILES to the key under which the encoder caches a molecule.

    The key is the canonical SMILES, or the SMILES as written if the prompt style needs its atom
    order. The function raises `MoleculeError` for a molecule that cannot be parsed or is larger
    than the checkpoint accepts.
    """
    key = as_written_key if config.style.as_written else canonical_key
    return partial(key, limits=molecule_limits(config), standardization=config.standardization)


def add_notes_fn(config: MoltcConfig) -> Callable[[Task, Answer, Sequence[str]], Answer]:
    """Return a function that adds the notes on a question's molecules to its answer.

    Its arguments are the task, the answer, and the SMILES in the order of the task's roles.
    """
    mode, limits = config.standardization, molecule_limits(config)

    def add_notes(task: Task, answer: Answer, molecules: Sequence[str]) -> Answer:
        # A failed answer may be one of a molecule that cannot be read.
        if answer.status != "ok":
            return answer
        notes = pair_notes(molecules, task.roles, mode, limits)
        return answer.model_copy(update={"notes": notes}) if notes else answer

    return add_notes


def encoder_graph_fn(config: MoltcConfig) -> Callable[[str], PackedMolecule]:
    """Return a function from a molecule's key to the encoder's input.

    The input contains the vector of descriptors if the checkpoint's encoder uses it.
    """
    return partial(packed_of, descriptors=config.graph_encoder_config.descriptors)


def expand_placeholders(token_ids: Sequence[int], config: MoltcConfig) -> list[int]:
    """Repeat each molecule's placeholder so that there is one per molecule token."""
    queries = config.qformer_config.num_queries
    return [
        token
        for token in token_ids
        for _ in range(queries if token == config.molecule_token_id else 1)
    ]


def prepare_inputs(
    prompts: Sequence[Prompt],
    tokenizer: MoltcTokenizer,
    config: MoltcConfig,
    device: torch.device | str = "cpu",
    *,
    pad_query: bool = False,
) -> ModelInputs:
    """Tokenize a batch of prompts and build the graphs of their molecules.

    Args:
        prompts: Texts with their molecules.
        tokenizer: Tokenizer of the checkpoint.
        config: Configuration of the checkpoint.
        device: Device of the tensors.
        pad_query: Whether to pad on the right, with at least one pad in every row, so that the
            first new token is predicted from a pad. The published model was trained this way on all
            but the longest prompt of a batch; see ``docs/concepts/published-model.md``.

    Raises:
        MoleculeError: If a molecule cannot be parsed.
        ProjectorError: If the checkpoint has no projector for a task.
        ValueError: If a text has more or fewer placeholders than molecules.
    """
    rows, molecules, projector = [], [], []
    encoder_key, encoder_graph = encoder_key_fn(config), encoder_graph_fn(config)
    for prompt in prompts:
        token_ids = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        placeholders = token_ids.count(config.molecule_token_id)
        if placeholders != len(prompt.molecules):
            raise ValueError(
                f"{placeholders} placeholders for {len(prompt.molecules)} molecules; the text "
                f"needs one {config.molecule_token} per molecule"
            )
        rows.append(expand_placeholders(token_ids, config))
        for role, smiles in enumerate(prompt.molecules):
            molecules.append(encoder_graph(encoder_key(smiles)))
            projector.append(projector_index(config, role, prompt.task))
    width = max(len(row) for row in rows) + pad_query

    def pad(row: list[int], value: int) -> list[int]:
        padding = [value] * (width - len(row))
        return row + padding if pad_query else padding + row

    pad_id = tokenizer.pad_token_id
    return ModelInputs(
        input_ids=torch.tensor([pad(row, pad_id) for row in rows], device=device),
        attention_mask=torch.tensor([pad([1] * len(row), 0) for row in rows], device=device),
        molecules=BatchMolGraph.from_molecules(molecules, device) if molecules else None,
        projector=torch.tensor(projector, device=device) if molecules else None,
    )


def prepare(*args: Any, **kwargs: Any) -> ModelInputs:
    """Call `prepare_inputs`; deprecated name."""
    warn_renamed("moltc_vllm.models.prepare", "moltc_vllm.models.prepare_inputs")
    return prepare_inputs(*args, **kwargs)
