"""Inputs of a conversion: the components of a published checkpoint, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moltc_vllm.models.conversion.encoder import PublishedEncoder, extract_encoder
from moltc_vllm.models.conversion.language import (
    PublishedLanguageModel,
    resolve_language_model,
    resolve_lora,
)
from moltc_vllm.models.conversion.lightning import LightningCheckpoint, read_lightning
from moltc_vllm.models.conversion.lora import LoraAdapter
from moltc_vllm.models.conversion.sizes import BertConfigFile, read_bert_config
from moltc_vllm.models.conversion.weight_names import GRAPH_ENCODER
from moltc_vllm.models.weights import WeightsError, summarize_mismatches


@dataclass(frozen=True, slots=True)
class ConversionInputs:
    """Components of a published checkpoint.

    Attributes:
        checkpoint: Lightning checkpoint.
        encoder: Molecule encoder and projection.
        bert: BERT configuration of the Q-Former, if any.
        language: Language model.
        lora: LoRA adapter, if any.
    """

    checkpoint: LightningCheckpoint
    encoder: PublishedEncoder
    bert: BertConfigFile | None
    language: PublishedLanguageModel
    lora: LoraAdapter | None


def read_inputs(
    lightning: Path,
    language_model: Path,
    *,
    lora: Path | None = None,
    lora_alpha: float | None = None,
    graph_encoder: Path | None = None,
    qformer_config: Path | None = None,
    molecule_row: Path | None = None,
    new_projector: bool = False,
) -> ConversionInputs:
    """Read the components of a published checkpoint and check the names of their weights.

    Args:
        lightning: Lightning checkpoint.
        language_model: Folder of the language model.
        lora: PEFT folder.
        lora_alpha: Value of alpha for LoRA weights in the Lightning file.
        graph_encoder: Plain state dict of the graph encoder.
        qformer_config: BERT ``config.json`` or its folder. Default: ``bert_pretrained`` beside
            the Lightning file, if it exists.
        molecule_row: File with the placeholder's row of the embeddings.
        new_projector: Whether a new projection will be initialized.

    Raises:
        WeightsError: If a file cannot be read, or weights are missing or superfluous.
    """
    checkpoint = read_lightning(lightning)
    language = resolve_language_model(checkpoint, language_model, molecule_row)
    encoder = extract_encoder(checkpoint, graph_encoder)
    _check_weight_names(checkpoint, encoder, language, new_projector=new_projector)
    return ConversionInputs(
        checkpoint=checkpoint,
        encoder=encoder,
        bert=_read_bert_config(qformer_config, lightning),
        language=language,
        lora=resolve_lora(checkpoint, language, lora, lora_alpha),
    )


def _check_weight_names(
    checkpoint: LightningCheckpoint,
    encoder: PublishedEncoder,
    language: PublishedLanguageModel,
    *,
    new_projector: bool,
) -> None:
    """Check that no weight is superfluous or missing.

    Raises:
        WeightsError: If there is a mismatch; the details list all of them.
    """
    is_stage_1 = checkpoint.weights.stage == 1
    has_projection = bool(encoder.projection)
    lines = [f"superfluous weight {name}" for name in checkpoint.weights.superfluous]
    lines += encoder.name_mismatches(
        with_projection=has_projection or not (new_projector or is_stage_1)
    )
    lines += language.name_mismatches()
    if new_projector and has_projection:
        raise WeightsError(
            f"{checkpoint.path} has a projection, which --new-projector would discard", lines
        )
    if is_stage_1 and not has_projection and not new_projector:
        raise WeightsError(
            f"{checkpoint.path} is a checkpoint of stage 1, which has no language model and no "
            "projection: give --new-projector to initialize an untrained one",
            lines,
        )
    if lines:
        hint = _graph_encoder_hint(encoder, lines)
        raise WeightsError(summarize_mismatches(checkpoint.path, lines) + hint, lines)


def _graph_encoder_hint(encoder: PublishedEncoder, lines: list[str]) -> str:
    """Return a hint to use ``--graph-encoder`` if weights of the graph encoder are missing."""
    missing = f"missing weight {encoder.prefix}{GRAPH_ENCODER}"
    if encoder.graph_file is None and any(line.startswith(missing) for line in lines):
        return "; give --graph-encoder FILE to fill in missing weights of the graph encoder"
    return ""


def _read_bert_config(given: Path | None, lightning: Path) -> BertConfigFile | None:
    if given is not None:
        return read_bert_config(given)
    default = lightning.parent / "bert_pretrained" / "config.json"
    return read_bert_config(default) if default.is_file() else None
