"""The language model of a published checkpoint: its folder's, tuned as a whole, or with LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PretrainedConfig

from moltc_vllm.models.conversion.lightning import Lightning
from moltc_vllm.models.conversion.lora import Lora, lora_of, read_lora
from moltc_vllm.models.conversion.names import LANGUAGE_MODEL
from moltc_vllm.models.conversion.pickles import read_pickle
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
from moltc_vllm.models.weights import WeightsError, checked_tensor, summary, weight_mismatches


@dataclass(slots=True)
class PublishedLanguageModel:
    """Configuration and tokenizer of a folder, and weights from there or from Lightning's file.

    Attributes:
        folder: The language model's folder.
        path: The Lightning file.
        prefix: Of the language model's weights there.
        tokenizer: With the placeholder.
        config: For the vocabulary with the placeholder.
        layout: Names and shapes of the weights.
        tuned: The weights, if they are in the Lightning file.
        molecule_row_file: Where the placeholder's row of the embeddings is from, if there is one.
        molecule_row: The row.
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
        """Whether the placeholder's row is one that the model was used with."""
        return bool(self.tuned) or self.molecule_row is not None

    @property
    def files(self) -> list[Path]:
        """What is used of the folder."""
        weights = [] if self.tuned else language_model_files(self.folder)
        return [self.folder / "config.json", self.folder / "tokenizer.json", *weights]

    def misnamed(self) -> list[str]:
        """One line for every weight in the Lightning file that is superfluous or missing."""
        if not self.tuned:
            return []
        return weight_mismatches(
            {f"{self.prefix}{key}": () for key in self._stored()},
            {f"{self.prefix}{key}": () for key in self.layout.shapes},
        )

    def misshapen(self) -> list[str]:
        """One line for every weight in the Lightning file of another shape."""
        stored = self._stored()
        return weight_mismatches(
            {f"{self.prefix}{key}": tensor.shape for key, tensor in stored.items()},
            {f"{self.prefix}{key}": self.layout.shapes[key] for key in stored},
        )

    def check_tied(self) -> None:
        """Make sure that an output layer that is not stored is in the embeddings.

        Raises:
            WeightsError: If both are in the Lightning file and differ.
        """
        if not self.config.tie_word_embeddings or OUTPUT_LAYER not in self.tuned:
            return
        head = self.tuned[OUTPUT_LAYER]
        for name in self.layout.embeddings:
            if head.shape != self.tuned[name].shape or not head.equal(self.tuned[name]):
                raise WeightsError(
                    f"{self.path}: {self.prefix}{OUTPUT_LAYER} differs from {name}, but "
                    f"{self.folder / 'config.json'} says that they are the same"
                )

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """Weights under their Hugging Face names.

        Raises:
            WeightsError: If one does not fit, or is not finite.
        """
        if not self.tuned:
            yield from language_model_weights(
                self.folder, self.config, molecule_row=self.molecule_row
            )
            return
        for key, tensor in self._stored().items():
            yield key, checked_tensor(f"{self.prefix}{key}", tensor, self.path).contiguous()

    def _stored(self) -> dict[str, Tensor]:
        """What our checkpoint has of the tuned weights: not the tied output layer."""
        if not self.config.tie_word_embeddings:
            return self.tuned
        return {key: tensor for key, tensor in self.tuned.items() if key != OUTPUT_LAYER}


def published_language_model(
    lightning: Lightning, folder: Path, molecule_row: Path | None
) -> PublishedLanguageModel:
    """Find out where a checkpoint's language model is.

    Args:
        lightning: The checkpoint; has the weights, if all of them were tuned.
        folder: The language model's folder.
        molecule_row: Saved tensor ``[H]``.

    Raises:
        WeightsError: If something is missing, cannot be read or does not fit.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder")
    tokenizer = load_language_tokenizer(folder)
    config = load_language_config(folder, len(tokenizer))
    model = PublishedLanguageModel(
        folder=folder,
        path=lightning.path,
        prefix=f"{lightning.parts.prefix}{LANGUAGE_MODEL}",
        tokenizer=tokenizer,
        config=config,
        layout=language_layout(config),
        tuned=lightning.parts.language_model,
    )
    if model.tuned:
        config.dtype = next(iter(model.tuned.values())).dtype  # the folder's need not be theirs
    if molecule_row is not None:
        model.molecule_row = _read_row(molecule_row, model)
        model.molecule_row_file = molecule_row
    return model


def published_lora(
    lightning: Lightning, model: PublishedLanguageModel, folder: Path | None, alpha: float | None
) -> Lora | None:
    """The checkpoint's adapter, if it has one, checked against its language model.

    Args:
        lightning: The checkpoint; newer MolCA code leaves LoRA weights in it.
        model: Its language model.
        folder: PEFT folder.
        alpha: For the weights in the Lightning file.

    Raises:
        WeightsError: If there are two, or the one there is does not fit.
    """
    inside = lightning.parts.lora
    if folder is not None and (inside or model.tuned):
        what = "LoRA weights" if inside else "a tuned language model"
        raise WeightsError(f"{lightning.path} has {what} of its own: --lora does not go with it")
    if alpha is not None and not inside:
        raise WeightsError(f"{lightning.path} has no LoRA weights: --lora-alpha is of no use")
    if inside:
        lora = lora_of(inside, _alpha(lightning, alpha), lightning.path)
    elif folder is not None:
        lora = read_lora(folder)
    else:
        return None
    lora.check(model.layout)
    return lora


def _alpha(lightning: Lightning, given: float | None) -> float:
    told = lightning.hyper_parameters
    if given is not None:
        return given
    if told.get("peft_config"):  # then the run took alpha from that file
        raise WeightsError(
            f"{lightning.path} has LoRA weights, but their alpha was in "
            f"{str(told['peft_config'])!r}; give --lora-alpha"
        )
    alpha = told.get("lora_alpha")
    if not isinstance(alpha, (int, float)):
        raise WeightsError(
            f"{lightning.path} has LoRA weights, but no lora_alpha in its hyper_parameters; "
            "give --lora-alpha"
        )
    return float(alpha)


def _read_row(path: Path, model: PublishedLanguageModel) -> Tensor:
    """The placeholder's row; it is also its output, so there has to be only one table."""
    if model.tuned:
        raise WeightsError(f"{model.path} has the molecule's row already: {path} is of no use")
    row = read_pickle(path)
    if not isinstance(row, Tensor):
        raise WeightsError(f"{path} is a {type(row).__name__}, expected a tensor")
    if not model.config.tie_word_embeddings:
        raise WeightsError(
            f"{path}: {model.folder} has an output layer of its own, which one row does not tell"
        )
    for name in model.layout.embeddings:
        width = model.layout.shapes[name][1]
        if tuple(row.shape) != (width,):
            lines = [f"the row has shape {list(row.shape)}, expected [{width}]"]
            raise WeightsError(summary(path, lines))
    return checked_tensor("the row", row, path)
