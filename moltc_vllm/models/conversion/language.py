"""Language model of a published checkpoint: from its folder, fully tuned, or with LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PretrainedConfig

from moltc_vllm.models.conversion.lightning import LightningCheckpoint
from moltc_vllm.models.conversion.lora import LoraAdapter, lora_from_weights, read_lora
from moltc_vllm.models.conversion.pickles import read_pickle
from moltc_vllm.models.conversion.weight_names import LANGUAGE_MODEL
from moltc_vllm.models.language_model import (
    OUTPUT_LAYER,
    LanguageLayout,
    language_layout,
    language_model_files,
    language_model_weights,
    load_language_config,
    load_language_tokenizer,
)
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.models.weights import (
    WeightsError,
    summarize_mismatches,
    validated_tensor,
    weight_mismatches,
)


@dataclass(slots=True)
class PublishedLanguageModel:
    """Language model of a folder, whose weights may be replaced by tuned ones.

    Attributes:
        folder: Folder of the language model.
        path: Lightning file.
        prefix: Prefix of the language model's weight names in the Lightning file.
        tokenizer: Tokenizer, including the placeholder token.
        config: Configuration for the vocabulary with the placeholder.
        layout: Names and shapes of the weights.
        tuned: Fully tuned weights in the Lightning file, if any.
        molecule_row_file: File with the placeholder's row of the embeddings, if given.
        molecule_row: Placeholder's row of the embeddings, ``[H]``, if given.
    """

    folder: Path
    path: Path
    prefix: str
    tokenizer: MoltcTokenizer
    config: PretrainedConfig
    layout: LanguageLayout
    tuned: dict[str, Tensor]
    molecule_row_file: Path | None = None
    molecule_row: Tensor | None = None

    @property
    def knows_molecule_row(self) -> bool:
        """Whether the placeholder's row is the one the model was trained or run with."""
        return bool(self.tuned) or self.molecule_row is not None

    @property
    def files(self) -> list[Path]:
        """Files of the folder that the conversion uses."""
        weights = [] if self.tuned else language_model_files(self.folder)
        return [self.folder / "config.json", self.folder / "tokenizer.json", *weights]

    def name_mismatches(self) -> list[str]:
        """Return one line for every superfluous or missing weight in the Lightning file."""
        if not self.tuned:
            return []
        return weight_mismatches(
            {f"{self.prefix}{name}": () for name in self._untied_weights()},
            {f"{self.prefix}{name}": () for name in self.layout.shapes},
        )

    def shape_mismatches(self) -> list[str]:
        """Return one line for every weight in the Lightning file with an unexpected shape."""
        weights = self._untied_weights()
        return weight_mismatches(
            {f"{self.prefix}{name}": tensor.shape for name, tensor in weights.items()},
            {f"{self.prefix}{name}": self.layout.shapes[name] for name in weights},
        )

    def check_tied_embeddings(self) -> None:
        """Check that a tied output layer equals the embeddings, because only these are kept.

        Raises:
            WeightsError: If both are in the Lightning file and differ.
        """
        if not self.config.tie_word_embeddings or OUTPUT_LAYER not in self.tuned:
            return
        output = self.tuned[OUTPUT_LAYER]
        for name in self.layout.embeddings:
            if output.shape != self.tuned[name].shape or not output.equal(self.tuned[name]):
                raise WeightsError(
                    f"{self.path}: {self.prefix}{OUTPUT_LAYER} differs from {name}, but "
                    f"{self.folder / 'config.json'} declares them tied"
                )

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights under their Hugging Face names.

        Raises:
            WeightsError: If a weight does not fit or is not finite.
        """
        if not self.tuned:
            yield from language_model_weights(
                self.folder, self.config, molecule_row=self.molecule_row
            )
            return
        for name, tensor in self._untied_weights().items():
            yield name, validated_tensor(f"{self.prefix}{name}", tensor, self.path).contiguous()

    def _untied_weights(self) -> dict[str, Tensor]:
        """Return the tuned weights without a tied output layer."""
        if not self.config.tie_word_embeddings:
            return self.tuned
        return {name: tensor for name, tensor in self.tuned.items() if name != OUTPUT_LAYER}


def resolve_language_model(
    checkpoint: LightningCheckpoint, folder: Path, molecule_row: Path | None
) -> PublishedLanguageModel:
    """Load configuration and tokenizer of a language model and locate its weights.

    Args:
        checkpoint: Lightning checkpoint, which has the weights if they were fully tuned.
        folder: Folder of the language model.
        molecule_row: File with a saved tensor ``[H]``, the placeholder's row of the embeddings.

    Raises:
        WeightsError: If a file is missing, cannot be read or does not fit.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder")
    tokenizer = load_language_tokenizer(folder)
    config = load_language_config(folder, len(tokenizer))
    model = PublishedLanguageModel(
        folder=folder,
        path=checkpoint.path,
        prefix=f"{checkpoint.weights.prefix}{LANGUAGE_MODEL}",
        tokenizer=tokenizer,
        config=config,
        layout=language_layout(config),
        tuned=checkpoint.weights.language_model,
    )
    if model.tuned:
        # The folder's configuration may declare a different dtype than the tuned weights have.
        config.dtype = next(iter(model.tuned.values())).dtype
    if molecule_row is not None:
        model.molecule_row = _read_molecule_row(molecule_row, model)
        model.molecule_row_file = molecule_row
    return model


def resolve_lora(
    checkpoint: LightningCheckpoint,
    model: PublishedLanguageModel,
    folder: Path | None,
    alpha: float | None,
) -> LoraAdapter | None:
    """Return the checkpoint's LoRA adapter, checked against the language model.

    Args:
        checkpoint: Lightning checkpoint; newer MolCA code stores LoRA weights in it.
        model: Language model of the checkpoint.
        folder: PEFT folder.
        alpha: Value of alpha for LoRA weights in the Lightning file.

    Raises:
        WeightsError: If two adapters are given, or the adapter does not fit.
    """
    stored = checkpoint.weights.lora
    if folder is not None and (stored or model.tuned):
        kind = "LoRA weights" if stored else "a fully tuned language model"
        raise WeightsError(f"{checkpoint.path} already has {kind}: --lora cannot be combined")
    if alpha is not None and not stored:
        raise WeightsError(f"{checkpoint.path} has no LoRA weights: omit --lora-alpha")
    if stored:
        adapter = lora_from_weights(stored, _lora_alpha(checkpoint, alpha), checkpoint.path)
    elif folder is not None:
        adapter = read_lora(folder)
    else:
        return None
    adapter.check(model.layout)
    return adapter


def _lora_alpha(checkpoint: LightningCheckpoint, alpha: float | None) -> float:
    """Return the given alpha, or that of the training run."""
    if alpha is not None:
        return alpha
    hyper_parameters = checkpoint.hyper_parameters
    if hyper_parameters.get("peft_config"):  # takes precedence over `lora_alpha` in training
        raise WeightsError(
            f"{checkpoint.path} has LoRA weights, but their alpha was in "
            f"{str(hyper_parameters['peft_config'])!r}; give --lora-alpha"
        )
    stored = hyper_parameters.get("lora_alpha")
    if not isinstance(stored, (int, float)):
        raise WeightsError(
            f"{checkpoint.path} has LoRA weights, but no lora_alpha in its hyper_parameters; "
            "give --lora-alpha"
        )
    return float(stored)


def _read_molecule_row(path: Path, model: PublishedLanguageModel) -> Tensor:
    """Read the placeholder's row, which is both its embedding and its output weights."""
    if model.tuned:
        raise WeightsError(f"{model.path} already has the placeholder's row: omit {path}")
    row = read_pickle(path)
    if not isinstance(row, Tensor):
        raise WeightsError(f"{path} is a {type(row).__name__}, expected a tensor")
    if not model.config.tie_word_embeddings:
        raise WeightsError(
            f"{path}: {model.folder} has a separate output layer, which needs a row of its own"
        )
    for name in model.layout.embeddings:
        width = model.layout.shapes[name][1]
        if tuple(row.shape) != (width,):
            lines = [f"the row has shape {list(row.shape)}, expected [{width}]"]
            raise WeightsError(summarize_mismatches(path, lines))
    return validated_tensor("the row", row, path)
