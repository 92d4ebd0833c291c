"""Conversion of published files to a checkpoint folder (``moltc convert --lightning``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from torch import Tensor

from moltc_vllm.models.checkpoint import CheckpointError, expected_weights, write_checkpoint
from moltc_vllm.models.config import MoltcConfig, ProjectorSharing
from moltc_vllm.models.conversion.card import build_card
from moltc_vllm.models.conversion.inputs import ConversionInputs, read_inputs
from moltc_vllm.models.conversion.lightning import LightningCheckpoint
from moltc_vllm.models.conversion.projector_split import check_sharing, split_projectors
from moltc_vllm.models.conversion.report import ConversionReport
from moltc_vllm.models.conversion.sizes import graph_encoder_config
from moltc_vllm.models.conversion.sizes import qformer_config as infer_qformer_config
from moltc_vllm.models.projector import projector_names
from moltc_vllm.models.weights import WeightsError, summarize_mismatches
from moltc_vllm.tasks import MOLECULE_TOKEN, get_style
from moltc_vllm.tasks.published_styles import MOLECULE_PROMPT, MOLTC_2024, MOLTC_2024_EARLY
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
    prompt_style: str = MOLTC_2024,
    molecule_prompt: str | None = None,
) -> ConversionReport:
    """Convert files of the published code to a checkpoint folder.

    The configuration is inferred from the shapes of the weights, and every weight keeps its dtype.
    An unknown or missing weight is an error. No code in the files is executed.

    Args:
        lightning: Lightning checkpoint of stage 2, or of stage 1 with ``new_projector``.
        language_model: Folder of the language model: configuration, tokenizer, and the weights
            unless the Lightning checkpoint contains a fully tuned language model.
        out: Folder to write; must not exist, or be empty.
        lora: PEFT folder with a LoRA adapter of the language model.
        lora_as: Whether to merge the adapter into the language model's weights, or to write it to
            the folder ``adapters`` of the checkpoint.
        lora_alpha: Value of alpha for LoRA weights in the Lightning file, if its hyper-parameters
            do not have one.
        task: Task that the checkpoint was fine-tuned for; also the name of the adapter.
        graph_encoder: Plain state dict of the graph encoder, for weights that the Lightning file
            lacks.
        qformer_config: BERT ``config.json`` or its folder, for the number of attention heads.
            Default: ``bert_pretrained`` beside the Lightning file, else heads of width 64.
        molecule_row: File with a saved tensor ``[H]``, the placeholder's row of the embeddings.
        projector_sharing: ``shared``, ``role`` or ``task_role``; all projectors are copies of the
            published one.
        new_projector: Whether to initialize a new projection, for a checkpoint of stage 1.
        prompt_style: Name of a style in `moltc_vllm.tasks.STYLES`.
        molecule_prompt: Template for one molecule's text in a prompt. Default: that of the
            training run, else the published one.

    Raises:
        WeightsError: If a file cannot be read or does not fit the others.
        CheckpointError: If ``out`` is not empty.
        ValueError: If an option has an unknown value or cannot be combined with the others.
    """
    out = Path(out)
    ensure_free(out, CheckpointError)
    check_sharing(projector_sharing)
    _check_lora_use(lora_as)
    get_style(prompt_style)
    inputs = read_inputs(
        lightning,
        language_model,
        lora=lora,
        lora_alpha=lora_alpha,
        graph_encoder=graph_encoder,
        qformer_config=qformer_config,
        molecule_row=molecule_row,
        new_projector=new_projector,
    )
    prompt = _choose_molecule_prompt(prompt_style, molecule_prompt, inputs.checkpoint)
    config = _build_config(inputs, projector_sharing, prompt_style, prompt)
    _check_task(task, config)
    expected = expected_weights(config)
    _check_weights(inputs, config, expected)
    keep_adapter = inputs.lora is not None and lora_as == "adapter"
    adapter_folder = PurePosixPath("adapters", task or "lora") if keep_adapter else None
    card = build_card(
        inputs, config, task=task, adapter_folder=adapter_folder, tensors=len(expected)
    )

    def write_adapter(folder: Path) -> None:
        if inputs.lora is not None and adapter_folder is not None:
            inputs.lora.write(folder / adapter_folder, out.name)

    weights = _stream_weights(inputs, config, expected, merge_lora=not keep_adapter)
    write_checkpoint(out, config, inputs.language.tokenizer, weights, card, extra=write_adapter)
    return ConversionReport(out, config, len(expected), card)


def _build_config(
    inputs: ConversionInputs,
    projector_sharing: ProjectorSharing,
    prompt_style: str,
    molecule_prompt: str | None,
) -> MoltcConfig:
    """Infer the checkpoint's configuration from its components."""
    language = inputs.language
    return MoltcConfig(
        graph_encoder_config=graph_encoder_config(inputs.encoder),
        qformer_config=infer_qformer_config(inputs.encoder, inputs.bert),
        text_config=language.config,
        projector_sharing=projector_sharing,
        tasks=get_style(prompt_style, molecule_prompt).tasks(),
        molecule_token=MOLECULE_TOKEN,
        molecule_token_id=language.tokenizer.convert_tokens_to_ids(MOLECULE_TOKEN),
        prompt_style=prompt_style,
        molecule_prompt=molecule_prompt,
        mask_molecule_token=not language.knows_molecule_row,
    )


def _stream_weights(
    inputs: ConversionInputs,
    config: MoltcConfig,
    expected: Mapping[str, Sequence[int]],
    *,
    merge_lora: bool,
) -> Iterator[tuple[str, Tensor]]:
    """Yield all weights of the checkpoint under their own names, one tensor at a time."""
    yield from inputs.encoder.stream()
    names = projector_names(config)
    projector = inputs.encoder.projector_weights(expected[f"projectors.{names[0]}.weight"])
    for name in names:
        for key, tensor in projector.items():
            yield f"projectors.{name}.{key}", tensor
    language_weights = inputs.language.stream()
    if inputs.lora is not None and merge_lora:
        language_weights = inputs.lora.merge(language_weights)
    for key, tensor in language_weights:
        yield f"language_model.{key}", tensor


def _check_weights(
    inputs: ConversionInputs, config: MoltcConfig, expected: Mapping[str, Sequence[int]]
) -> None:
    """Raise `WeightsError` if a weight has an unexpected shape or a tied weight differs."""
    lines = inputs.encoder.shape_mismatches(expected, projector_names(config)[0])
    lines += inputs.language.shape_mismatches()
    if lines:
        raise WeightsError(summarize_mismatches(inputs.checkpoint.path, lines), lines)
    inputs.language.check_tied_embeddings()


def _check_lora_use(lora_as: str) -> None:
    allowed = get_args(LoraUse)
    if lora_as not in allowed:
        raise ValueError(f"lora_as must be one of {', '.join(allowed)}, not {lora_as!r}")


def _check_task(task: str | None, config: MoltcConfig) -> None:
    if task is not None and task not in config.tasks:
        raise ValueError(f"unknown task {task!r}; known tasks: {', '.join(config.tasks)}")


def _choose_molecule_prompt(
    style: str, given: str | None, checkpoint: LightningCheckpoint
) -> str | None:
    """Return the molecule prompt: the given one, the training run's, or the published default.

    Raises:
        ValueError: If the given prompt is invalid, or the style does not use one.
        WeightsError: If the training run's prompt is invalid.
    """
    stored = checkpoint.hyper_parameters.get("prompt")
    if given is not None or style not in (MOLTC_2024, MOLTC_2024_EARLY):
        get_style(style, given)
        return given
    if stored is None:
        get_style(style, MOLECULE_PROMPT)
        return MOLECULE_PROMPT
    try:
        get_style(style, str(stored))
    except ValueError as error:
        raise WeightsError(
            f"{checkpoint.path}: prompt in hyper_parameters: {error}; give --molecule-prompt"
        ) from error
    return str(stored)
