"""Texts and molecules to tensors, for `MoltcModel` (vLLM has its own way: `plugin.processor`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from moltc_vllm.chem import MoleculeLimits, as_written_key, canonical_key, packed_of
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.projector import projector_index
from moltc_vllm.models.tokenizer import MoltcTokenizer


class Prompt(NamedTuple):
    """A text with one placeholder per molecule, and the molecules in that order."""

    text: str
    molecules: Sequence[str]
    task: str | None = None


class ModelInputs(NamedTuple):
    """Arguments of `MoltcModel.forward` and `MoltcModel.generate`."""

    input_ids: Tensor  # [B, T] padded on one side
    attention_mask: Tensor  # [B, T]
    molecules: BatchMolGraph | None
    projector: Tensor | None  # [molecules] int64


def limits_of(config: MoltcConfig) -> MoleculeLimits:
    """The molecule sizes the checkpoint accepts."""
    return MoleculeLimits(max_atoms=config.max_atoms, max_characters=config.max_smiles_characters)


def encoder_keys(config: MoltcConfig) -> Callable[[str], str]:
    """What names molecules as the checkpoint's encoder sees them: canonical, or as written.

    It raises a `MoleculeError` for a molecule that cannot be read, or is larger than the checkpoint
    accepts.
    """
    key = as_written_key if config.style.as_written else canonical_key
    return partial(key, limits=limits_of(config))


def expand_placeholders(ids: Sequence[int], config: MoltcConfig) -> list[int]:
    """Repeat every molecule's placeholder once per molecule token."""
    queries = config.qformer_config.num_queries
    return [
        token for token in ids for _ in range(queries if token == config.molecule_token_id else 1)
    ]


def prepare(
    prompts: Sequence[Prompt],
    tokenizer: MoltcTokenizer,
    config: MoltcConfig,
    device: torch.device | str = "cpu",
    *,
    pad_query: bool = False,
) -> ModelInputs:
    """Tokenize a batch of prompts and build their molecules' graphs.

    Args:
        prompts: Texts and molecules.
        tokenizer: The checkpoint's.
        config: The checkpoint's.
        device: Where the tensors go.
        pad_query: Pad on the right, every row at least once, so that the first new token is
            predicted from a pad. The published model saw its shorter prompts so.

    Raises:
        MoleculeError: If a molecule cannot be read.
        ProjectorError: If the checkpoint has no projector for a task.
        ValueError: If a text has more or fewer placeholders than molecules.
    """
    rows, molecules, projector = [], [], []
    key = encoder_keys(config)
    for prompt in prompts:
        ids = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        places = ids.count(config.molecule_token_id)
        if places != len(prompt.molecules):
            raise ValueError(f"{places} placeholders for {len(prompt.molecules)} molecules")
        rows.append(expand_placeholders(ids, config))
        for role, smiles in enumerate(prompt.molecules):
            molecules.append(packed_of(key(smiles)))
            projector.append(projector_index(config, role, prompt.task))
    width = max(len(row) for row in rows) + pad_query
    pad = tokenizer.pad_token_id

    def padded(row: list[int], filler: int) -> list[int]:
        padding = [filler] * (width - len(row))
        return row + padding if pad_query else padding + row

    return ModelInputs(
        input_ids=torch.tensor([padded(row, pad) for row in rows], device=device),
        attention_mask=torch.tensor([padded([1] * len(row), 0) for row in rows], device=device),
        molecules=BatchMolGraph.from_molecules(molecules, device) if molecules else None,
        projector=torch.tensor(projector, device=device) if molecules else None,
    )
