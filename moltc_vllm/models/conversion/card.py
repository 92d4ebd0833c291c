"""What a converted checkpoint's ``card.json`` tells: inputs, and what was made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.conversion.encoder import PROJECTION_SEED, PublishedEncoder
from moltc_vllm.models.conversion.language import PublishedLanguageModel
from moltc_vllm.models.conversion.lightning import Lightning
from moltc_vllm.models.conversion.lora import Lora, lora_files
from moltc_vllm.models.conversion.provenance import folder_name, input_record, plain_json
from moltc_vllm.models.conversion.sizes import HEAD_WIDTH, BertSizes, contradictions

_TRAINED = "converted from published weights; nothing was measured"
_UNTRAINED = "its projection is untrained: its answers are noise"


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything a checkpoint is made of."""

    run: Lightning
    encoder: PublishedEncoder
    bert: BertSizes | None
    language: PublishedLanguageModel
    lora: Lora | None
    lora_place: str | None  # folder of an adapter that is kept; None: merged


def card_of(
    sources: Sources, config: MoltcConfig, task: str | None, tensors: int
) -> dict[str, Any]:
    """Tell where a checkpoint is from. The same inputs give the same card, wherever they lie.

    Args:
        sources: What it is made of.
        config: Its configuration.
        task: What it was fine-tuned for, if that is known.
        tensors: Number of its weights.
    """
    run, encoder = sources.run, sources.encoder
    told, left_out = plain_json(run.hyper_parameters)
    return {
        "trained_on": "unknown",
        "metrics": {},
        "note": _TRAINED if encoder.projection else _UNTRAINED,
        "prompt_style": config.prompt_style,
        "task": task,
        "published": {
            "stage": run.parts.stage,
            **run.run,
            "hyper_parameters": told,
            "hyper_parameters_left_out": left_out,
            "inputs": _inputs(sources),
        },
        "conversion": {
            "attention_heads": _heads(config.qformer_config.num_attention_heads, sources.bert),
            "language_model": run.path.name
            if sources.language.tuned
            else folder_name(sources.language.folder),
            "molecule_row": _row(sources.language),
            "lora": _lora(sources),
            "projectors": config.projector_sharing,
            "filled": _filled(encoder),
            "drawn": {} if encoder.projection else {"projection": {"seed": PROJECTION_SEED}},
            "unused": run.parts.unused,
            "lacking": lacking(sources),
            "contradictions": contradictions(run.hyper_parameters, config),
            "tensors": tensors,
        },
    }


def lacking(sources: Sources) -> list[str]:
    """What the training run had and these files have not, as far as its settings tell."""
    tuned = sources.run.hyper_parameters.get("llm_tune")
    if tuned == "lora" and sources.lora is None:
        return ["LoRA weights, which the run trained (llm_tune: lora)"]
    if tuned == "full" and not sources.language.tuned:
        return ["the language model's weights, which the run trained (llm_tune: full)"]
    return []


def _inputs(sources: Sources) -> list[dict[str, str]]:
    language, lora, bert = sources.language, sources.lora, sources.bert
    records = [input_record("--lightning", sources.run.path)]
    records += [input_record("--language-model", path, language.folder) for path in language.files]
    if lora is not None and lora.source.is_dir():  # else it was in the Lightning file
        records += [input_record("--lora", path, lora.source) for path in lora_files(lora.source)]
    if sources.encoder.graph_file is not None:
        records.append(input_record("--graph-encoder", sources.encoder.graph_file))
    if bert is not None:
        records.append(input_record("--qformer-config", bert.path, bert.path.parent))
    if language.molecule_row_file is not None:
        records.append(input_record("--molecule-row", language.molecule_row_file))
    return records


def _heads(number: int, bert: BertSizes | None) -> dict[str, Any]:
    if bert is None:
        return {"number": number, "from": f"no file: heads of width {HEAD_WIDTH}"}
    return {"number": number, "from": f"{folder_name(bert.path.parent)}/{bert.path.name}"}


def _row(language: PublishedLanguageModel) -> str:
    if language.tuned:
        return f"{language.path.name}; its logit is kept"
    if language.molecule_row_file is not None:
        return f"{language.molecule_row_file.name}; its logit is kept"
    return "mean of the others; its logit is masked"


def _lora(sources: Sources) -> dict[str, Any] | None:
    lora = sources.lora
    if lora is None:
        return None
    return {
        "from": lora.source.resolve().name,
        "place": sources.lora_place or "merged",
        "modules": len(lora.pairs),
        "r": lora.rank,
        "alpha": lora.alpha,
        "scale": lora.scale,
    }


def _filled(encoder: PublishedEncoder) -> dict[str, Any]:
    if encoder.graph_file is None:
        return {}
    names = [f"{encoder.prefix}{key}" for key in encoder.filled]
    return {"from": encoder.graph_file.name, "weights": names}
