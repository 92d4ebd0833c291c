"""A pretrained language-model folder as part of a checkpoint: streamed, never instantiated."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from moltc_vllm.models.conversion.pickles import read_tensors
from moltc_vllm.models.tokenizer import MoltcTokenizer, as_moltc_tokenizer
from moltc_vllm.models.weights import WeightsError, checked_tensor, summary, weight_mismatches

OUTPUT_LAYER = "lm_head.weight"

RANDOM_PARAMETER_LIMIT = 3_000_000_000
"""Above this size, random language-model weights are refused: they would be of no use."""


class LanguageModelError(WeightsError):
    """A language-model folder that is incomplete or not what its configuration says."""


def load_language_config(folder: Path, vocab_size: int) -> PretrainedConfig:
    """The folder's ``config.json`` with another vocabulary size.

    Args:
        folder: Language-model folder.
        vocab_size: Size with added tokens.

    Raises:
        LanguageModelError: If there is none, or transformers does not know it.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} has no config.json")
    try:
        # Code that a folder brings along is never run.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises several kinds for files of other kinds
        raise LanguageModelError(f"{path}: {_first_line(error)}") from error
    config.vocab_size = vocab_size
    config.name_or_path = ""  # where it lay on this machine is nobody's business
    return config


def load_language_tokenizer(folder: Path) -> MoltcTokenizer:
    """The folder's own tokenizer with ``<mol>`` added as the last token.

    Raises:
        LanguageModelError: If the folder has no ``tokenizer.json``, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers has one error class for all defects
        raise LanguageModelError(f"{path}: {_first_line(error)}") from error
    return as_moltc_tokenizer(tokenizer)


class LanguageLayout(NamedTuple):
    """What a language model's weights are called, and how large they are."""

    shapes: dict[str, torch.Size]  # without a tied output layer
    embeddings: frozenset[str]  # of these, the ones with a row per token
    transposed: frozenset[str]  # of these, the ones that are [in, out], as GPT-2's


def language_layout(config: PretrainedConfig) -> LanguageLayout:
    """Lay out a language model without making it.

    Raises:
        LanguageModelError: If transformers has no causal language model for the configuration.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError as error:
        raise LanguageModelError(
            f"transformers has no causal language model of type {config.model_type!r}"
        ) from error
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop(OUTPUT_LAYER, None)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    modules = list(model.named_modules())
    embeddings = {f"{name}.weight" for name, module in modules if module in ends}
    transposed = {f"{name}.weight" for name, module in modules if isinstance(module, Conv1D)}
    return LanguageLayout(shapes, frozenset(embeddings & shapes.keys()), frozenset(transposed))


def language_model_weights(
    folder: Path, config: PretrainedConfig, *, molecule_row: Tensor | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Stream a causal language model's weights under their Hugging Face names.

    The embeddings grow by rows of their mean for added tokens; the copy that a tied output
    layer is gets left out. Names and shapes are checked before the first weight comes.

    Args:
        folder: Language-model folder (safetensors, or a PyTorch file read with
            ``weights_only=True``).
        config: Its configuration with the enlarged ``vocab_size``.
        molecule_row: The last row of the embeddings, ``[H]``, instead of a mean.

    Raises:
        LanguageModelError: If a weight is missing, superfluous or of another shape.
        WeightsError: If a file cannot be read, or a weight is not finite.
    """
    shapes, embeddings, _ = language_layout(config)
    names: dict[str, str | None] = {}
    found = {}
    for path in language_model_files(folder):
        for key, shape in _shapes(path):
            name = names[key] = _own_name(key, shapes, tied=config.tie_word_embeddings)
            if name in embeddings and len(shape) == 2:
                shape = [max(shape[0], config.vocab_size), shape[1]]
            if name is not None:
                found[name] = shape
    if lines := weight_mismatches(found, shapes):
        raise LanguageModelError(summary(folder, lines), lines)
    for path in language_model_files(folder):
        for key, tensor in _read(path):
            name = names[key]
            if name is None:
                continue
            tensor = checked_tensor(key, tensor, path)
            if name in embeddings:
                tensor = _grown(tensor, config.vocab_size, molecule_row)
            yield name, tensor.contiguous()


def random_language_model_weights(config: PretrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """Fresh weights under their Hugging Face names, without a tied output layer.

    Raises:
        LanguageModelError: If the model is too large for that to make sense.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > RANDOM_PARAMETER_LIMIT:
        raise LanguageModelError(
            f"{size / 1e9:.1f} billion random weights would be of no use: "
            "give the pretrained language model (--language-model DIR)"
        )
    model = AutoModelForCausalLM.from_config(config)
    for key, tensor in model.state_dict().items():
        if key != OUTPUT_LAYER or not config.tie_word_embeddings:
            yield key, tensor


def language_model_files(folder: Path) -> list[Path]:
    """The weight files of a language-model folder.

    Raises:
        LanguageModelError: If there are none, or one named by the index is missing.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            names = _indexed(index)
        elif (folder / f"{stem}.{suffix}").is_file():
            names = [f"{stem}.{suffix}"]
        else:
            continue
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise LanguageModelError(f"{folder}: {missing[0]} is missing")
        return [folder / name for name in names]
    raise LanguageModelError(f"{folder} has no model.safetensors or pytorch_model.bin")


def _indexed(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LanguageModelError(f"{index} is not an index of weights") from error


def _own_name(key: str, expected: Mapping[str, torch.Size], *, tied: bool) -> str | None:
    """A weight's name in the model; ``None`` for the copy that a tied output layer is."""
    if key not in expected and f"model.{key}" in expected:
        # Some exports leave out the class's prefix ("decoder.layers.0..." for OPT).
        key = f"model.{key}"
    return None if tied and key == OUTPUT_LAYER else key


def _grown(tensor: Tensor, rows: int, last: Tensor | None) -> Tensor:
    if tensor.shape[0] >= rows:
        return tensor
    # The mean keeps the output distribution as it was; the placeholder itself is masked anyway.
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    grown = torch.cat([tensor, mean.expand(rows - tensor.shape[0], -1)])
    if last is not None:
        grown[-1] = last
    return grown


def _shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                yield key, list(file.get_slice(key).get_shape())
    else:
        for key, tensor in read_tensors(path).items():
            yield key, list(tensor.shape)


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                yield key, file.get_tensor(key)
    else:
        yield from read_tensors(path).items()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, framework="pt")
    except Exception as error:  # safetensors has one error class for all defects
        raise LanguageModelError(f"{path} cannot be read: {_first_line(error)}") from error
    with file:
        yield file


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
