"""Weights, configuration and tokenizer of a pretrained language model, for a new checkpoint.

Weights are streamed from the folder's files; the model is never instantiated with data.
"""

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

from moltc_vllm.models.conversion.pickles import read_state_dict
from moltc_vllm.models.tokenizer import MoltcTokenizer, as_moltc_tokenizer
from moltc_vllm.models.weights import (
    WeightsError,
    summarize_mismatches,
    validated_tensor,
    weight_mismatches,
)

OUTPUT_LAYER = "lm_head.weight"

RANDOM_PARAMETER_LIMIT = 3_000_000_000
"""Number of parameters above which random language-model weights are refused."""


class LanguageModelError(WeightsError):
    """A language-model folder that is incomplete or contradicts its configuration."""


def load_language_config(folder: Path, vocab_size: int) -> PretrainedConfig:
    """Read the folder's ``config.json`` and replace the vocabulary size.

    Args:
        folder: Language-model folder.
        vocab_size: Size of the vocabulary with added tokens.

    Raises:
        LanguageModelError: If the file is missing, or transformers does not know the model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} has no config.json")
    try:
        # Code that the folder contains is never executed.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises various classes for malformed files
        raise LanguageModelError(f"{path}: {_first_line(error)}") from error
    config.vocab_size = vocab_size
    config.name_or_path = ""  # keep paths of this machine out of the checkpoint
    return config


def load_language_tokenizer(folder: Path) -> MoltcTokenizer:
    """Read the folder's tokenizer and add ``<mol>`` as its last token.

    Args:
        folder: Language-model folder.

    Raises:
        LanguageModelError: If the folder has no ``tokenizer.json``, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises one class for all defects
        raise LanguageModelError(f"{path}: {_first_line(error)}") from error
    return as_moltc_tokenizer(tokenizer)


class LanguageLayout(NamedTuple):
    """Names and shapes of a language model's weights.

    Attributes:
        shapes: Shape of every weight, without a tied output layer.
        embeddings: Names of the weights with one row per token.
        transposed: Names of the weights stored as ``[in, out]``, as in GPT-2.
    """

    shapes: dict[str, torch.Size]
    embeddings: frozenset[str]
    transposed: frozenset[str]


def language_layout(config: PretrainedConfig) -> LanguageLayout:
    """Determine the weights of a language model without allocating them.

    Args:
        config: Configuration of the language model.

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
    embedding_modules = (model.get_input_embeddings(), model.get_output_embeddings())
    modules = list(model.named_modules())
    embeddings = {f"{name}.weight" for name, module in modules if module in embedding_modules}
    transposed = {f"{name}.weight" for name, module in modules if isinstance(module, Conv1D)}
    return LanguageLayout(shapes, frozenset(embeddings & shapes.keys()), frozenset(transposed))


def language_model_weights(
    folder: Path, config: PretrainedConfig, *, molecule_row: Tensor | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Stream a causal language model's weights under their Hugging Face names.

    Embeddings are extended by their mean for each added token, and a tied output layer is left out.
    All names and shapes are checked before the first weight is yielded.

    Args:
        folder: Language-model folder with safetensors files, or with PyTorch files that
            ``weights_only=True`` can read.
        config: Configuration with the enlarged ``vocab_size``.
        molecule_row: ``[H]`` embedding of the last token; default: the mean.

    Raises:
        LanguageModelError: If a weight is missing, superfluous or has another shape.
        WeightsError: If a file cannot be read, or a weight is not finite.
    """
    shapes, embeddings, _ = language_layout(config)
    model_keys: dict[str, str | None] = {}
    actual = {}
    for path in language_model_files(folder):
        for key, shape in _stored_shapes(path):
            name = model_keys[key] = _model_key(key, shapes, tied=config.tie_word_embeddings)
            if name in embeddings and len(shape) == 2:
                shape = [max(shape[0], config.vocab_size), shape[1]]
            if name is not None:
                actual[name] = shape
    if mismatches := weight_mismatches(actual, shapes):
        raise LanguageModelError(summarize_mismatches(folder, mismatches), mismatches)
    for path in language_model_files(folder):
        for key, tensor in _stored_tensors(path):
            name = model_keys[key]
            if name is None:
                continue
            tensor = validated_tensor(key, tensor, path)
            if name in embeddings:
                tensor = _extend_rows(tensor, config.vocab_size, molecule_row)
            yield name, tensor.contiguous()


def random_language_model_weights(config: PretrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield random weights under their Hugging Face names, without a tied output layer.

    Args:
        config: Configuration of the language model.

    Raises:
        LanguageModelError: If the model has more than `RANDOM_PARAMETER_LIMIT` parameters.
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
    """List the weight files of a language-model folder.

    Args:
        folder: Language-model folder.

    Raises:
        LanguageModelError: If there are no weight files, or one that the index names is missing.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            names = _indexed_files(index)
        elif (folder / f"{stem}.{suffix}").is_file():
            names = [f"{stem}.{suffix}"]
        else:
            continue
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise LanguageModelError(f"{folder}: {missing[0]} is missing")
        return [folder / name for name in names]
    raise LanguageModelError(f"{folder} has no model.safetensors or pytorch_model.bin")


def _indexed_files(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LanguageModelError(f"{index} is not an index of weights") from error


def _model_key(key: str, expected: Mapping[str, torch.Size], *, tied: bool) -> str | None:
    """Return a stored weight's name in the model; ``None`` for a tied output layer."""
    if key not in expected and f"model.{key}" in expected:
        # Some exports omit the class's prefix ("decoder.layers.0..." for OPT).
        key = f"model.{key}"
    return None if tied and key == OUTPUT_LAYER else key


def _extend_rows(tensor: Tensor, rows: int, last: Tensor | None) -> Tensor:
    """Extend embeddings ``[V, H]`` to at least ``rows`` rows."""
    if tensor.shape[0] >= rows:
        return tensor
    # With the mean, logits of the new tokens are average; the placeholder's is masked anyway.
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    extended = torch.cat([tensor, mean.expand(rows - tensor.shape[0], -1)])
    if last is not None:
        extended[-1] = last
    return extended


def _stored_shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                yield key, list(file.get_slice(key).get_shape())
    else:
        for key, tensor in read_state_dict(path).items():
            yield key, list(tensor.shape)


def _stored_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                yield key, file.get_tensor(key)
    else:
        yield from read_state_dict(path).items()


@contextlib.contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, framework="pt")
    except Exception as error:  # safetensors raises one class for all defects
        raise LanguageModelError(f"{path} cannot be read: {_first_line(error)}") from error
    with file:
        yield file


def _first_line(error: Exception) -> str:
    # The errors of transformers have long explanations after their first line.
    return str(error).strip().partition("\n")[0] or type(error).__name__
