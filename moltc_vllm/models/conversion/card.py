"""Content of a converted checkpoint's ``card.json``: its inputs and how they were used."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.conversion.encoder import PROJECTION_SEED, PublishedEncoder
from moltc_vllm.models.conversion.inputs import ConversionInputs
from moltc_vllm.models.conversion.language import PublishedLanguageModel
from moltc_vllm.models.conversion.lora import lora_files
from moltc_vllm.models.conversion.provenance import folder_name, input_record, plain_json
from moltc_vllm.models.conversion.sizes import (
    HEAD_WIDTH,
    BertConfigFile,
    hyper_parameter_conflicts,
)

_CONVERTED_NOTE = "converted from published weights; not evaluated"
_UNTRAINED_NOTE = "the projection is untrained, so the answers are meaningless"


def build_card(
    inputs: ConversionInputs,
    config: MoltcConfig,
    *,
    task: str | None,
    adapter_folder: PurePosixPath | None,
    tensors: int,
) -> dict[str, Any]:
    """Build ``card.json``; it depends on the content of the inputs, not on their location.

    Args:
        inputs: Components of the published checkpoint.
        config: Configuration of the converted checkpoint.
        task: Task that the checkpoint was fine-tuned for, if known.
        adapter_folder: Folder of the LoRA adapter in the checkpoint; None if it was merged.
        tensors: Number of weights.
    """
    checkpoint, encoder = inputs.checkpoint, inputs.encoder
    hyper_parameters, left_out = plain_json(checkpoint.hyper_parameters)
    heads = config.qformer_config.num_attention_heads
    return {
        "trained_on": "unknown",
        "metrics": {},
        "note": _CONVERTED_NOTE if encoder.projection else _UNTRAINED_NOTE,
        "prompt_style": config.prompt_style,
        "task": task,
        "published": {
            "stage": checkpoint.weights.stage,
            **checkpoint.run,
            "hyper_parameters": hyper_parameters,
            "hyper_parameters_left_out": left_out,
            "inputs": _input_records(inputs),
        },
        "conversion": {
            "attention_heads": {"number": heads, "from": _source_of_heads(inputs.bert)},
            "language_model": checkpoint.path.name
            if inputs.language.tuned
            else folder_name(inputs.language.folder),
            "molecule_row": _describe_molecule_row(inputs.language),
            "lora": _describe_lora(inputs, adapter_folder),
            "projectors": config.projector_sharing,
            "filled": _describe_filled(encoder),
            "drawn": {} if encoder.projection else {"projection": {"seed": PROJECTION_SEED}},
            "unused": checkpoint.weights.unused,
            "lacking": missing_trained_weights(inputs),
            "contradictions": hyper_parameter_conflicts(checkpoint.hyper_parameters, config),
            "tensors": tensors,
        },
    }


def missing_trained_weights(inputs: ConversionInputs) -> list[str]:
    """Return the weights that the run trained by its hyper-parameters but the files lack."""
    llm_tune = inputs.checkpoint.hyper_parameters.get("llm_tune")
    if llm_tune == "lora" and inputs.lora is None:
        return ["LoRA weights, which the run trained (llm_tune: lora)"]
    if llm_tune == "full" and not inputs.language.tuned:
        return ["the language model's weights, which the run trained (llm_tune: full)"]
    return []


def _input_records(inputs: ConversionInputs) -> list[dict[str, str]]:
    language, lora, bert = inputs.language, inputs.lora, inputs.bert
    records = [input_record("--lightning", inputs.checkpoint.path)]
    records += [input_record("--language-model", path, language.folder) for path in language.files]
    # A source that is not a folder is the Lightning file, which is recorded already.
    if lora is not None and lora.source.is_dir():
        records += [input_record("--lora", path, lora.source) for path in lora_files(lora.source)]
    if inputs.encoder.graph_file is not None:
        records.append(input_record("--graph-encoder", inputs.encoder.graph_file))
    if bert is not None:
        records.append(input_record("--qformer-config", bert.path, bert.path.parent))
    if language.molecule_row_file is not None:
        records.append(input_record("--molecule-row", language.molecule_row_file))
    return records


def _source_of_heads(bert: BertConfigFile | None) -> str:
    if bert is None:
        return f"no file: heads of width {HEAD_WIDTH}"
    return f"{folder_name(bert.path.parent)}/{bert.path.name}"


def _describe_molecule_row(language: PublishedLanguageModel) -> str:
    if language.tuned:
        return f"{language.path.name}; its logit is kept"
    if language.molecule_row_file is not None:
        return f"{language.molecule_row_file.name}; its logit is kept"
    return "mean of the other rows; its logit is masked"


def _describe_lora(
    inputs: ConversionInputs, adapter_folder: PurePosixPath | None
) -> dict[str, Any] | None:
    lora = inputs.lora
    if lora is None:
        return None
    return {
        "from": lora.source.resolve().name,
        "place": "merged" if adapter_folder is None else str(adapter_folder),
        "modules": len(lora.pairs),
        "r": lora.rank,
        "alpha": lora.alpha,
        "scale": lora.scale,
    }


def _describe_filled(encoder: PublishedEncoder) -> dict[str, Any]:
    if encoder.graph_file is None:
        return {}
    names = [f"{encoder.prefix}{name}" for name in encoder.filled]
    return {"from": encoder.graph_file.name, "weights": names}
