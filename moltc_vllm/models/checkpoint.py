"""The checkpoint folder: written here, read strictly here.

``config.json``, ``model*.safetensors``, tokenizer files, ``generation_config.json`` and
``card.json``. Anything that does not fit exactly is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig
from transformers.initialization import no_init_weights

from moltc_vllm._version import __version__
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer, stop_token_id
from moltc_vllm.models.weights import weight_mismatches
from moltc_vllm.utils.atomic_files import new_folder, sha256

INDEX_FILE = "model.safetensors.index.json"
CARD_FILE = "card.json"
CONFIG_FILE = "config.json"
SHARD_BYTES = 5 * 2**30


class CheckpointError(ValueError):
    """A checkpoint folder that is not complete, or does not fit its configuration."""


def load_config(folder: Path) -> MoltcConfig:
    """Read ``config.json``.

    Raises:
        CheckpointError: If the folder or file is missing, or is another model's.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint folder: it has no config.json")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if raw.get("model_type") != MoltcConfig.model_type:
        raise CheckpointError(
            f"{path} has model_type {raw.get('model_type')!r}, expected {MoltcConfig.model_type!r}"
        )
    try:
        config = MoltcConfig.from_dict(raw)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_card(folder, config)
    if not 0 <= config.molecule_token_id < config.text_config.vocab_size:
        raise CheckpointError(
            f"{path}: molecule_token_id {config.molecule_token_id} is not in the vocabulary of "
            f"{config.text_config.vocab_size}"
        )
    return config


def _check_card(folder: Path, config: MoltcConfig) -> None:
    """The card repeats the prompt style for readers; one who changes it there shall know."""
    told = read_card(folder).get("prompt_style")
    if told is not None and told != config.prompt_style:
        raise CheckpointError(
            f"{folder / CARD_FILE} has prompt_style {told!r}, config.json "
            f"{config.prompt_style!r}: change both"
        )


def read_card(folder: Path) -> dict[str, Any]:
    """Read ``card.json``; empty, if there is none.

    Raises:
        CheckpointError: If it is not a JSON object.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not a JSON object") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return card


def load_tokenizer(folder: Path) -> MoltcTokenizer:
    """Read the tokenizer files."""
    return MoltcTokenizer.from_pretrained(folder)


def load_model(
    folder: Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> MoltcModel:
    """Read a whole model, strictly.

    Args:
        folder: Checkpoint folder.
        dtype: Convert weights to this; default: as they are stored.
        device: Where to put them.

    Raises:
        CheckpointError: If a weight is missing, superfluous or of another shape.
    """
    config = load_config(folder)
    with no_init_weights():  # nothing is drawn only to be overwritten
        model = MoltcModel(config)
    expected = model.state_dict()
    tied = _tied_keys(model)
    weights = dict(read_weights(folder))
    wanted = {
        key: tensor.shape
        for key, tensor in sorted(expected.items())
        if key in weights or key not in tied
    }
    problems = weight_mismatches({key: t.shape for key, t in sorted(weights.items())}, wanted)
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{folder} does not fit its configuration: {shown}{more}")
    model.load_state_dict(weights, strict=False, assign=True)  # checked above; tied are absent
    model.language_model.tie_weights()
    model.to(device)
    if dtype is not None:
        model.to(dtype)
    return model.eval()


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Stream the tensors of all ``model*.safetensors`` files.

    Raises:
        CheckpointError: If there is none, or one named by the index is missing.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("model*.safetensors"))
    if not names:
        raise CheckpointError(f"{folder} has no model*.safetensors")
    for name in names:
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder}: {name} is missing")
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    yield key, file.get_tensor(key)
        except Exception as error:  # safetensors has one error class for all defects
            raise CheckpointError(f"{path} cannot be read: {error}") from error


def expected_weights(config: MoltcConfig) -> dict[str, torch.Size]:
    """Name and shape of every weight that a checkpoint of this configuration has."""
    with torch.device("meta"), no_init_weights():
        model = MoltcModel(config)
    tied = _tied_keys(model)
    return {key: tensor.shape for key, tensor in model.state_dict().items() if key not in tied}


def state_of(model: MoltcModel) -> dict[str, Tensor]:
    """The weights to store: the state dict without copies of tied weights."""
    tied = _tied_keys(model)
    return {key: t.contiguous() for key, t in model.state_dict().items() if key not in tied}


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
    """Write a checkpoint folder; it appears under its name only when it is complete.

    The configuration's prompt style decides the chat template and the stop token.

    Args:
        folder: Must not exist, or be empty.
        config: The model's configuration.
        tokenizer: Its tokenizer; gets the style's chat template, if that has one.
        weights: Tensors by name; may be a stream, only one shard is held in memory.
        card: What the model was trained and measured on; checksums and version are added.
        shard_bytes: Largest weight file.
        extra: Writes further files into the folder that it is given.

    Raises:
        CheckpointError: If the folder is in use.
        ValueError: If the tokenizer has no token for the style's stop text.
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


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json`` with our version and the checksums of the weights that are there."""
    weights = [*folder.glob("model*"), *folder.glob("adapters/*/*.safetensors")]
    checksums = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(weights)}
    content = {"moltc_vllm": __version__, **card, "sha256": checksums}
    (folder / CARD_FILE).write_text(json.dumps(content, indent=2) + "\n")


def save_model(
    folder: Path, model: MoltcModel, tokenizer: MoltcTokenizer, card: Mapping[str, Any]
) -> None:
    """Write a model that is in memory as a checkpoint folder."""
    write_checkpoint(folder, model.config, tokenizer, state_of(model).items(), card)


def write_weights(
    folder: Path, weights: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write ``model*.safetensors``, and their index if there are several.

    Args:
        folder: Where; must exist.
        weights: Tensors by name; may be a stream, only one shard is held in memory.
        shard_bytes: Largest weight file.
    """
    shard: dict[str, Tensor] = {}
    memory: set[int] = set()
    shard_size = total = 0
    weight_map: dict[str, int] = {}
    paths: list[Path] = []

    def flush() -> None:
        nonlocal shard, shard_size, memory
        path = folder / f"part-{len(paths)}.safetensors"
        try:
            path.touch()
            mode = path.stat().st_mode
            save_file(shard, path, metadata={"format": "pt"})
            path.chmod(mode)  # safetensors' own files may be read by nobody else
        except SafetensorError as error:  # a full disk, for one
            raise CheckpointError(f"{folder}: weights cannot be written: {error}") from error
        paths.append(path)
        shard, shard_size, memory = {}, 0, set()

    for key, tensor in weights:
        size = tensor.nbytes
        if shard and shard_size + size > shard_bytes:
            flush()
        if tensor.untyped_storage().data_ptr() in memory:
            tensor = tensor.clone()  # safetensors refuses two names for the same memory
        memory.add(tensor.untyped_storage().data_ptr())
        shard[key] = tensor
        shard_size += size
        total += size
        weight_map[key] = len(paths)
    flush()
    if len(paths) == 1:
        paths[0].rename(folder / "model.safetensors")
        return
    names = [f"model-{i + 1:05}-of-{len(paths):05}.safetensors" for i in range(len(paths))]
    for path, name in zip(paths, names, strict=True):
        path.rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {key: names[number] for key, number in weight_map.items()},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _tied_keys(model: MoltcModel) -> set[str]:
    """State-dict keys that are another key's tensor."""
    if not model.config.text_config.tie_word_embeddings:
        return set()
    return {"language_model.lm_head.weight"} & set(model.state_dict())


def folder_checksum(folder: Path) -> str:
    """One checksum of everything that decides answers: weights, configuration, tokenizer."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and path.name not in _TOLD
    )
    known = {name: sha256(folder / name) for name in names}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


_TOLD = (CARD_FILE, "README.md")


def weights_checksum(folder: Path) -> str:
    """One checksum of all weights, as the card has them; computed, if it has none.

    Raises:
        CheckpointError: If the card cannot be read.
    """
    known = read_card(folder).get("sha256")
    if not isinstance(known, dict) or not known:
        paths = sorted(
            (*folder.glob("model*.safetensors"), *folder.glob("adapters/*/*.safetensors"))
        )
        known = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
