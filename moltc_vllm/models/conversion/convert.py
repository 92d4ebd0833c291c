"""`moltc convert`: published files in, one of our checkpoint folders out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from moltc_vllm.models.checkpoint import CheckpointError, expected_weights, write_checkpoint
from moltc_vllm.models.config import MoltcConfig, ProjectorSharing
from moltc_vllm.models.conversion.card import Sources, card_of
from moltc_vllm.models.conversion.encoder import PublishedEncoder, published_encoder
from moltc_vllm.models.conversion.language import (
    PublishedLanguageModel,
    published_language_model,
    published_lora,
)
from moltc_vllm.models.conversion.lightning import Lightning, read_lightning
from moltc_vllm.models.conversion.names import GRAPH_ENCODER
from moltc_vllm.models.conversion.sizes import (
    BertSizes,
    graph_encoder_sizes,
    qformer_sizes,
    read_bert_sizes,
)
from moltc_vllm.models.conversion.split import ConversionReport, check_sharing, split_projectors
from moltc_vllm.models.projector import projector_names
from moltc_vllm.models.weights import WeightsError, summary
from moltc_vllm.tasks import MOLECULE_TOKEN, get_style
from moltc_vllm.tasks.published import CURRENT, MOLECULE_PROMPT
from moltc_vllm.tasks.style import OWN_STYLE
from moltc_vllm.utils.atomic_files import ensure_free

__all__ = ["ConversionReport", "LoraUse", "convert_published", "split_projectors"]

LoraUse = Literal["merge", "adapter"]


def convert_published(
    lightning: Path,
    language_model: Path,
    out: Path,
    *,
    lora: Path | None = None,
    lora_as: LoraUse = "merge",
    lora_alpha: float | None = None,
    task: str | None = None,
    graph_encoder: Path | None = None,
    qformer_config: Path | None = None,
    molecule_row: Path | None = None,
    projector_sharing: ProjectorSharing = "shared",
    new_projector: bool = False,
    prompt_style: str = CURRENT,
    molecule_prompt: str | None = None,
) -> ConversionReport:
    """Write a checkpoint folder from files of the published code.

    Sizes are those of the weights, every weight keeps its dtype, and every weight in the files is
    used or known to be of no use. Nothing in the files is executed.

    Args:
        lightning: Lightning checkpoint of stage 2, or of stage 1 with ``new_projector``.
        language_model: Folder of the language model: configuration, tokenizer, and the weights
            unless the checkpoint has them (tuned as a whole).
        out: Folder to write; must not exist, or be empty.
        lora: PEFT folder.
        lora_as: Add the adapter to the language model's weights, or keep it beside them.
        lora_alpha: Of LoRA weights inside the Lightning file, where its hyper-parameters do not
            tell.
        task: What the checkpoint was fine-tuned for; names the adapter.
        graph_encoder: Plain state dict of the graph encoder, for weights that are missing.
        qformer_config: BERT ``config.json`` or its folder, for the number of attention heads.
        molecule_row: Saved tensor ``[H]``: the placeholder's row of the embeddings.
        projector_sharing: ``shared``, ``role`` or ``task_role``; all begin as copies.
        new_projector: Draw a projection, for a checkpoint of stage 1.
        prompt_style: One of `moltc_vllm.tasks.STYLES`.
        molecule_prompt: Text of one molecule in a prompt; default: that of the training run.

    Raises:
        WeightsError: If a file cannot be read or does not fit.
        CheckpointError: If ``out`` is in use.
        ValueError: If an option is none, or does not go with the others.
    """
    out = Path(out)
    ensure_free(out, CheckpointError)
    check_sharing(projector_sharing)
    if lora_as not in get_args(LoraUse):
        raise ValueError(f"LoRA as {lora_as!r} is none of {', '.join(get_args(LoraUse))}")
    get_style(prompt_style)
    run = read_lightning(lightning)
    language = published_language_model(run, language_model, molecule_row)
    encoder = published_encoder(run, graph_encoder)
    _check_names(run, encoder, language, new_projector)
    bert = _bert_sizes(qformer_config, lightning)
    prompt = _molecule_prompt(prompt_style, molecule_prompt, run)
    config = MoltcConfig(
        graph_encoder_config=graph_encoder_sizes(encoder),
        qformer_config=qformer_sizes(encoder, bert),
        text_config=language.config,
        projector_sharing=projector_sharing,
        tasks=get_style(prompt_style, prompt).tasks(),
        molecule_token=MOLECULE_TOKEN,
        molecule_token_id=language.tokenizer.convert_tokens_to_ids(MOLECULE_TOKEN),
        prompt_style=prompt_style,
        molecule_prompt=prompt,
        mask_molecule_token=not language.knows_molecule_row,
    )
    if task is not None and task not in config.tasks:
        raise ValueError(f"unknown task {task!r}; there are {', '.join(config.tasks)}")
    expected = expected_weights(config)
    lines = encoder.misshapen(expected, projector_names(config)[0]) + language.misshapen()
    if lines:
        raise WeightsError(summary(lightning, lines), lines)
    language.check_tied()
    adapter = published_lora(run, language, lora, lora_alpha)
    place = f"adapters/{task or 'lora'}" if adapter and lora_as == "adapter" else None
    sources = Sources(run, encoder, bert, language, adapter, place)
    card = card_of(sources, config, task, len(expected))

    def write_adapter(folder: Path) -> None:
        if adapter is not None and place is not None:
            adapter.write(folder / place, out.name)

    write_checkpoint(
        out,
        config,
        language.tokenizer,
        _weights(sources, config, expected),
        card,
        extra=write_adapter,
    )
    return ConversionReport(out, config, len(expected), card)


def _weights(
    sources: Sources, config: MoltcConfig, expected: Mapping[str, torch.Size]
) -> Iterator[tuple[str, Tensor]]:
    """Everything under our names, one tensor at a time."""
    yield from sources.encoder.stream()
    names = projector_names(config)
    projector = sources.encoder.projector(expected[f"projectors.{names[0]}.weight"])
    for name in names:
        for key, tensor in projector.items():
            yield f"projectors.{name}.{key}", tensor
    stream = sources.language.stream()
    if sources.lora is not None and sources.lora_place is None:
        stream = sources.lora.merged(stream)
    for key, tensor in stream:
        yield f"language_model.{key}", tensor


def _check_names(
    run: Lightning, encoder: PublishedEncoder, language: PublishedLanguageModel, new: bool
) -> None:
    """Every weight has its place, and every place its weight.

    Raises:
        WeightsError: If not; the details are all of them.
    """
    stage_1 = run.parts.stage == 1
    projects = bool(encoder.projection)
    lines = [f"superfluous weight {key}" for key in run.parts.unmatched]
    lines += encoder.misnamed(with_projection=projects or not (new or stage_1))
    lines += language.misnamed()
    if new and projects:
        raise WeightsError(
            f"{run.path} has a projection, which --new-projector would throw away", lines
        )
    if stage_1 and not projects and not new:
        raise WeightsError(
            f"{run.path} is of stage 1, before there was a language model, and has no projection: "
            "--new-projector draws one, untrained",
            lines,
        )
    if lines:
        gap = any(
            line.startswith(f"missing weight {encoder.prefix}{GRAPH_ENCODER}") for line in lines
        )
        hint = (
            "; --graph-encoder FILE fills what is missing of the graph encoder"
            if gap and encoder.graph_file is None
            else ""
        )
        raise WeightsError(summary(run.path, lines) + hint, lines)


def _bert_sizes(given: Path | None, lightning: Path) -> BertSizes | None:
    if given is not None:
        return read_bert_sizes(given)
    beside = lightning.parent / "bert_pretrained" / "config.json"
    return read_bert_sizes(beside) if beside.is_file() else None


def _molecule_prompt(style: str, given: str | None, run: Lightning) -> str | None:
    """A molecule's text in prompts: as asked for, as in the training run, or as published.

    Raises:
        ValueError: If it is none, or the style has no such thing.
    """
    told = run.hyper_parameters.get("prompt")
    if style == OWN_STYLE.name or given is not None or told is None:
        own = given if style == OWN_STYLE.name or given is not None else MOLECULE_PROMPT
        get_style(style, own)
        return own
    try:
        get_style(style, str(told))
    except ValueError as error:
        raise WeightsError(
            f"{run.path}: prompt in hyper_parameters: {error}; give --molecule-prompt"
        ) from error
    return str(told)
