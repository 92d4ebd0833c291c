"""A pretrained language-model folder as part of a checkpoint: streamed, never instantiated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from moltc_vllm.models.tokenizer import MoltcTokenizer, as_moltc_tokenizer

_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")


RANDOM_PARAMETER_LIMIT = 3_000_000_000
"""Above this size, random language-model weights are refused: they would be of no use."""


class LanguageModelError(ValueError):
    """A language-model folder that is incomplete or not what its configuration says."""


def load_language_tokenizer(folder: Path) -> MoltcTokenizer:
    """The folder's own tokenizer with ``<mol>`` added as the last token.

    Raises:
        LanguageModelError: If the folder has no ``tokenizer.json``.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} has no tokenizer.json")
    return as_moltc_tokenizer(Tokenizer.from_file(str(path)))


def language_model_weights(folder: Path, config: PretrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """Stream a causal language model's weights under their Hugging Face names.

    The embeddings grow by rows of their mean for added tokens; the copy that a tied output
    layer is, and transformers' old position buffers, are left out.

    Args:
        folder: Language-model folder (safetensors, or a PyTorch file read with
            ``weights_only=True``).
        config: Its configuration with the enlarged ``vocab_size``.

    Raises:
        LanguageModelError: If a weight is missing, superfluous or of another shape.
    """
    with torch.device("meta"):
        expected = AutoModelForCausalLM.from_config(config).state_dict()
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    left = set(expected)
    for key, tensor in _read(folder):
        if key not in expected:
            # Some exports leave out the class's prefix ("decoder.layers.0..." for OPT).
            key = f"model.{key}"
        if key == "model.lm_head.weight" and config.tie_word_embeddings:
            continue
        if key not in expected:
            raise LanguageModelError(f"{folder}: superfluous weight {key.removeprefix('model.')}")
        if key.endswith(_EMBEDDINGS):
            tensor = _grown(tensor, config.vocab_size)
        if tensor.shape != expected[key].shape:
            raise LanguageModelError(
                f"{folder}: {key} has shape {list(tensor.shape)}, "
                f"expected {list(expected[key].shape)}"
            )
        left.discard(key)
        yield key, tensor.contiguous()
    if left:
        raise LanguageModelError(f"{folder}: missing weight {', '.join(sorted(left)[:5])}")


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
        if key != "lm_head.weight" or not config.tie_word_embeddings:
            yield key, tensor


def _grown(tensor: Tensor, rows: int) -> Tensor:
    if tensor.shape[0] >= rows:
        return tensor
    # The mean keeps the output distribution as it was; the placeholder itself is masked anyway.
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(rows - tensor.shape[0], -1)])


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    files = _files(folder)
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    yield key, file.get_tensor(key)
        else:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            yield from state.items()


def _files(folder: Path) -> list[Path]:
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        elif (folder / f"{stem}.{suffix}").is_file():
            names = [f"{stem}.{suffix}"]
        else:
            continue
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise LanguageModelError(f"{folder}: {missing[0]} is missing")
        return [folder / name for name in names]
    raise LanguageModelError(f"{folder} has no model.safetensors or pytorch_model.bin")
