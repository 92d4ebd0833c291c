"""Checkpoint folders: strict reading, atomic writing.

A folder holds ``config.json``, ``model*.safetensors``, the tokenizer's files,
``generation_config.json`` and ``card.json``. Reading fails with an error that names the cause if
anything is missing, superfluous or does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.initialization import no_init_weights

from moltc_vllm.models.checkpoint_card import (
    CARD_FILE,
    folder_checksum,
    read_card,
    weights_checksum,
    write_card,
)
from moltc_vllm.models.checkpoint_weights import (
    INDEX_FILE,
    SHARD_BYTES,
    read_weights,
    write_weights,
)
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer, stop_token_id
from moltc_vllm.models.weights import weight_mismatches
from moltc_vllm.utils.atomic_files import new_folder
from moltc_vllm.utils.errors import one_line
from moltc_vllm.utils.json_objects import read_json_object

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "INDEX_FILE",
    "SHARD_BYTES",
    "CheckpointError",
    "expected_weights",
    "folder_checksum",
    "load_config",
    "load_model",
    "load_tokenizer",
    "read_card",
    "read_weights",
    "save_model",
    "untied_state_dict",
    "weights_checksum",
    "write_card",
    "write_checkpoint",
    "write_weights",
]

CONFIG_FILE = "config.json"

_MAX_MISMATCHES = 5
"""Number of mismatching weights that an error message lists."""


def load_config(folder: Path) -> MoltcConfig:
    """Read and check ``config.json``.

    Args:
        folder: Checkpoint folder.

    Raises:
        CheckpointError: If the folder or file is missing, belongs to another kind of model, or
            contradicts ``card.json``.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint folder: it has no {CONFIG_FILE}")
    try:
        raw = read_json_object(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if raw.get("model_type") != MoltcConfig.model_type:
        raise CheckpointError(
            f"{path} has model_type {raw.get('model_type')!r}, expected {MoltcConfig.model_type!r}"
        )
    try:
        config = MoltcConfig.from_dict(raw)
    except ValueError as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from error
    _check_prompt_style(folder, config)
    if not 0 <= config.molecule_token_id < config.text_config.vocab_size:
        raise CheckpointError(
            f"{path}: molecule_token_id {config.molecule_token_id} is not in the vocabulary of "
            f"{config.text_config.vocab_size}"
        )
    return config


def _check_prompt_style(folder: Path, config: MoltcConfig) -> None:
    """Raise if the card names another prompt style.

    The card repeats the style for its readers. Without this check a change in the card alone would
    have no effect and no warning.
    """
    card_style = read_card(folder).get("prompt_style")
    if card_style is not None and card_style != config.prompt_style:
        raise CheckpointError(
            f"{folder / CARD_FILE} has prompt_style {card_style!r}, {CONFIG_FILE} "
            f"{config.prompt_style!r}: change both"
        )


def load_tokenizer(folder: Path) -> MoltcTokenizer:
    """Read the tokenizer of a checkpoint folder."""
    return MoltcTokenizer.from_pretrained(folder)


def load_model(
    folder: Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> MoltcModel:
    """Read a model with all its weights.

    Args:
        folder: Checkpoint folder.
        dtype: Dtype that weights are converted to; default: the stored one.
        device: Device of the model.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: If a weight is missing, superfluous or has another shape.
    """
    config = load_config(folder)
    with no_init_weights():  # every weight is overwritten below
        model = MoltcModel(config)
    weights = dict(read_weights(folder))
    _check_weights(folder, model, weights)
    # `strict=False` because tied weights are not stored; `_check_weights` found no other gap.
    model.load_state_dict(weights, strict=False, assign=True)
    model.language_model.tie_weights()
    model.to(device)
    if dtype is not None:
        model.to(dtype)
    return model.eval()


def _check_weights(folder: Path, model: MoltcModel, weights: Mapping[str, Tensor]) -> None:
    """Raise if weights do not fit the model; tied weights may be present or absent."""
    tied = _tied_keys(model)
    expected = {
        key: tensor.shape
        for key, tensor in sorted(model.state_dict().items())
        if key in weights or key not in tied
    }
    actual = {key: tensor.shape for key, tensor in sorted(weights.items())}
    if mismatches := weight_mismatches(actual, expected):
        shown = "; ".join(mismatches[:_MAX_MISMATCHES])
        hidden = len(mismatches) - _MAX_MISMATCHES
        more = f"; and {hidden} more" if hidden > 0 else ""
        raise CheckpointError(f"{folder} does not fit its configuration: {shown}{more}")


def expected_weights(config: MoltcConfig) -> dict[str, torch.Size]:
    """Return the name and shape of every weight that a checkpoint of this configuration stores."""
    with torch.device("meta"), no_init_weights():
        model = MoltcModel(config)
    tied = _tied_keys(model)
    return {key: tensor.shape for key, tensor in model.state_dict().items() if key not in tied}


def untied_state_dict(model: MoltcModel) -> dict[str, Tensor]:
    """Return the weights to store: the state dict without copies of tied weights."""
    tied = _tied_keys(model)
    return {
        key: tensor.contiguous() for key, tensor in model.state_dict().items() if key not in tied
    }


def _tied_keys(model: MoltcModel) -> set[str]:
    """Return the state-dict keys that repeat another key's tensor."""
    if not model.config.text_config.tie_word_embeddings:
        return set()
    return {"language_model.lm_head.weight"} & set(model.state_dict())


def write_checkpoint(
    folder: Path,
    config: MoltcConfig,
    tokenizer: MoltcTokenizer,
    weights: Iterable[tuple[str, Tensor]],
    card: Mapping[str, Any],
    *,
    shard_bytes: int = SHARD_BYTES,
    extra: Callable[[Path], None] | None = None,
) -> None:
    """Write a checkpoint folder, which appears under its name only when it is complete.

    The prompt style of the configuration determines the chat template and the stop token.

    Args:
        folder: Folder to write; must not exist or be empty.
        config: Configuration of the model.
        tokenizer: Tokenizer of the model; its chat template is replaced if the prompt style has
            one.
        weights: Names and tensors; a stream is held in memory one file at a time.
        card: Description of the checkpoint, such as its training data and metrics; version and
            checksums are added.
        shard_bytes: Maximum size of a weight file in bytes.
        extra: Callback that writes further files into the folder it receives.

    Raises:
        CheckpointError: If the folder is in use or a file cannot be written.
        ValueError: If the tokenizer has no single token for the style's stop text.
    """
    with new_folder(Path(folder), CheckpointError) as partial:
        config.save_pretrained(partial)
        style = config.style
        if style.chat_template is not None:
            tokenizer.chat_template = style.chat_template
        tokenizer.save_pretrained(partial)
        GenerationConfig(
            bos_token_id=config.text_config.bos_token_id,
            eos_token_id=stop_token_id(tokenizer, style),
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(partial)
        write_weights(partial, weights, shard_bytes)
        if extra is not None:
            extra(partial)
        write_card(partial, card)


def save_model(
    folder: Path, model: MoltcModel, tokenizer: MoltcTokenizer, card: Mapping[str, Any]
) -> None:
    """Write a model from memory as a checkpoint folder; arguments as in `write_checkpoint`."""
    write_checkpoint(folder, model.config, tokenizer, untied_state_dict(model).items(), card)
