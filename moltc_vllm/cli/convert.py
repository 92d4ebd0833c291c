"""``moltc convert``: convert published files, or split the projectors of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.messages import fail
from moltc_vllm.utils.errors import one_line

if TYPE_CHECKING:
    from moltc_vllm.models.conversion.report import ConversionReport

_PUBLISHED, _OWN = "Options for published files", "Options for a checkpoint folder"


def convert(
    out: Annotated[Path, typer.Argument(help="Checkpoint folder to write.")],
    lightning: Annotated[
        Path | None,
        typer.Option(
            help="Lightning checkpoint of the published code (.ckpt).", rich_help_panel=_PUBLISHED
        ),
    ] = None,
    language_model: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoint's language model.", rich_help_panel=_PUBLISHED),
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(
            help="PEFT folder with a LoRA adapter (lora_epoch_N).", rich_help_panel=_PUBLISHED
        ),
    ] = None,
    lora_as: Annotated[
        str | None,
        typer.Option(
            help="`merge` the LoRA adapter into the weights (default), or keep it as an `adapter`.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            help="Alpha of LoRA weights in the Lightning file, if its hyper-parameters lack it.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task that the checkpoint was fine-tuned for; names the adapter.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    graph_encoder: Annotated[
        Path | None,
        typer.Option(
            help="Plain state dict of the GIN, for weights that the Lightning file lacks.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    qformer_config: Annotated[
        Path | None,
        typer.Option(
            help="BERT config.json or its folder, for the number of attention heads; "
            "default: bert_pretrained/ beside the Lightning file.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    molecule_row: Annotated[
        Path | None,
        typer.Option(
            help="File with the embedding of <mol>, a saved tensor.", rich_help_panel=_PUBLISHED
        ),
    ] = None,
    new_projector: Annotated[
        bool,
        typer.Option(
            "--new-projector",
            help="Randomly initialize the projector (stage-1 checkpoints have none).",
            rich_help_panel=_PUBLISHED,
        ),
    ] = False,
    prompt_style: Annotated[
        str | None,
        typer.Option(
            help="Prompt style: moltc-2024 (default), moltc-2024-early or moltc.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    molecule_prompt: Annotated[
        str | None,
        typer.Option(
            help="Template for one molecule in prompts; default: that of the training run.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint folder whose projectors are copied for separate roles.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    projectors: Annotated[
        str | None,
        typer.Option(
            help="Copies of the projector: shared (a single one), role (one per role) or "
            "task_role (one per task and role)."
        ),
    ] = None,
    role_split: Annotated[
        bool,
        typer.Option(
            "--role-split", "--projector-per-role", help="Short form of --projectors role."
        ),
    ] = False,
) -> None:
    """Convert published MolTC or MolCA files, or split the projectors of a checkpoint folder."""
    published: dict[str, Any] = {
        "lora": lora,
        "lora_as": lora_as,
        "lora_alpha": lora_alpha,
        "task": task,
        "graph_encoder": graph_encoder,
        "qformer_config": qformer_config,
        "molecule_row": molecule_row,
        "new_projector": new_projector or None,
        "prompt_style": prompt_style,
        "molecule_prompt": molecule_prompt,
    }
    given = {name: value for name, value in published.items() if value is not None}
    if (lightning is None) == (checkpoint is None):
        fail("give either --lightning (published files) or --checkpoint (a folder of this package)")
    if role_split:
        if projectors not in (None, "role"):
            fail(f"--role-split and --projectors {projectors} contradict each other")
        projectors = "role"
    if lightning is not None:
        if language_model is None:
            fail("--lightning needs --language-model, the folder of its language model")
        if projectors is not None:
            given["projector_sharing"] = projectors
        _print_report(_run(_convert_published, lightning, language_model, out, given))
        return
    incompatible = [*given, *(["language_model"] if language_model else [])]
    if incompatible:
        fail(f"--{incompatible[0].replace('_', '-')} cannot be combined with --checkpoint")
    if projectors is None:
        fail("--checkpoint needs --role-split or --projectors")
    _print_report(_run(_split_projectors, checkpoint, out, projectors))


def _convert_published(
    lightning: Path, language_model: Path, out: Path, options: Any
) -> ConversionReport:
    from moltc_vllm.models.conversion.convert import convert_published

    return convert_published(lightning, language_model, out, **options)


def _split_projectors(checkpoint: Path, out: Path, projectors: Any) -> ConversionReport:
    from moltc_vllm.models.conversion.convert import split_projectors

    return split_projectors(checkpoint, out, projectors)


def _run(function: Any, *arguments: Any) -> ConversionReport:
    """Call a conversion; on failure list every mismatch, print a summary line and exit."""
    try:
        report: ConversionReport = function(*arguments)
    except (ValueError, OSError) as error:
        message = one_line(error)
        details = getattr(error, "details", ())
        if any(line not in message for line in details):  # else the summary is complete
            for line in details:
                typer.echo(line, err=True)
        fail(message)
    return report


def _print_report(report: ConversionReport) -> None:
    """Print a summary of the checkpoint and of how its inputs were used."""
    config, card = report.config, report.card
    graph, qformer = config.graph_encoder_config, config.qformer_config
    typer.echo(
        f"{report.folder}: {report.tensors} weights; GIN {graph.num_layers} x "
        f"{graph.hidden_size}, Q-Former {qformer.num_layers} x {qformer.hidden_size}, "
        f"{config.text_config.model_type} of width {config.text_config.hidden_size}; "
        f"projectors {config.projector_sharing}, prompts {config.prompt_style}"
    )
    conversion = card.get("conversion")
    if conversion is not None and not card.get("steps"):
        _print_conversion(conversion)


def _print_conversion(conversion: dict[str, Any]) -> None:
    """Print how the inputs were used, with warnings about missing or contradictory inputs."""
    heads = conversion["attention_heads"]
    typer.echo(f"attention heads: {heads['number']}, from {heads['from']}")
    typer.echo(
        f"language model: {conversion['language_model']}; "
        f"row of <mol>: {conversion['molecule_row']}"
    )
    if lora := conversion["lora"]:
        typer.echo(
            f"LoRA: {lora['from']} of rank {lora['r']}, {lora['modules']} modules, "
            f"scale {lora['scale']:g}, {lora['place']}"
        )
    if filled := conversion["filled"]:
        typer.echo(f"filled in from {filled['from']}: {len(filled['weights'])} weights")
    if conversion["unused"]:
        typer.echo(f"known weights that answers do not need: {len(conversion['unused'])}")
    for missing in conversion["lacking"]:
        typer.echo(f"moltc: warning: not in these files: {missing}", err=True)
    for conflict in conversion["contradictions"]:
        typer.echo(f"moltc: warning: {conflict}; the sizes of the weights are used", err=True)
    if conversion["drawn"]:
        typer.echo("The projection is randomly initialized: train it before you use the answers.")
