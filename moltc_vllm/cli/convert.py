"""``moltc convert``: published checkpoints in, our checkpoint folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.messages import fail

if TYPE_CHECKING:
    from moltc_vllm.models.conversion.convert import ConversionReport

_PUBLISHED, _OWN = "From published files", "From one of our folders"


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
        typer.Option(help="Folder of its language model.", rich_help_panel=_PUBLISHED),
    ] = None,
    lora: Annotated[
        Path | None, typer.Option(help="PEFT folder (lora_epoch_N).", rich_help_panel=_PUBLISHED)
    ] = None,
    lora_as: Annotated[
        str | None,
        typer.Option(
            help="merge into the weights (default), or keep as an adapter.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            help="Of LoRA weights in the Lightning file, where it does not tell.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What it was fine-tuned for; the adapter's name.", rich_help_panel=_PUBLISHED
        ),
    ] = None,
    graph_encoder: Annotated[
        Path | None,
        typer.Option(
            help="Plain GIN state dict, for what the Lightning file lacks.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    qformer_config: Annotated[
        Path | None,
        typer.Option(
            help="BERT config.json or its folder, for the number of heads; "
            "default: bert_pretrained/ beside the Lightning file.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    molecule_row: Annotated[
        Path | None,
        typer.Option(help="Saved embedding of <mol>.", rich_help_panel=_PUBLISHED),
    ] = None,
    new_projector: Annotated[
        bool,
        typer.Option("--new-projector", help="Draw one (stage 1).", rich_help_panel=_PUBLISHED),
    ] = False,
    prompt_style: Annotated[
        str | None,
        typer.Option(
            help="moltc-2024 (default), moltc-2024-early or moltc.", rich_help_panel=_PUBLISHED
        ),
    ] = None,
    molecule_prompt: Annotated[
        str | None,
        typer.Option(
            help="Text of a molecule in prompts; default: as in the training run.",
            rich_help_panel=_PUBLISHED,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint folder to give more projectors.", rich_help_panel=_OWN),
    ] = None,
    projectors: Annotated[
        str | None,
        typer.Option(
            help="shared, role (one per place) or task_role (per task and place), as copies."
        ),
    ] = None,
    role_split: Annotated[
        bool,
        typer.Option("--role-split", "--projector-per-role", help="The same as --projectors role."),
    ] = False,
) -> None:
    """Make a checkpoint folder of published MolTC or MolCA files, or give ours more projectors."""
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
        fail("give either --lightning (published) or --checkpoint (ours)")
    if role_split:
        if projectors not in (None, "role"):
            fail(f"--role-split and --projectors {projectors} contradict each other")
        projectors = "role"
    if lightning is not None:
        if language_model is None:
            fail("--lightning needs --language-model, the folder of its language model")
        if projectors is not None:
            given["projector_sharing"] = projectors
        _tell(_run(_published, lightning, language_model, out, given))
        return
    foreign = [*given, *(["language_model"] if language_model else [])]
    if foreign:
        fail(f"--{foreign[0].replace('_', '-')} does not go with --checkpoint")
    if projectors is None:
        fail("--checkpoint needs --role-split or --projectors")
    _tell(_run(_split, checkpoint, out, projectors))


def _published(lightning: Path, language_model: Path, out: Path, options: Any) -> ConversionReport:
    from moltc_vllm.models.conversion.convert import convert_published

    return convert_published(lightning, language_model, out, **options)


def _split(checkpoint: Path, out: Path, projectors: Any) -> ConversionReport:
    from moltc_vllm.models.conversion.convert import split_projectors

    return split_projectors(checkpoint, out, projectors)


def _run(work: Any, *arguments: Any) -> ConversionReport:
    """Convert; what does not fit is told weight by weight, then the reason in one line."""
    try:
        report: ConversionReport = work(*arguments)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        details = getattr(error, "details", ())
        if any(line not in message for line in details):  # else one line says it all
            for line in details:
                typer.echo(line, err=True)
        fail(message)
    return report


def _tell(report: ConversionReport) -> None:
    """Say what was done."""
    config, card = report.config, report.card
    graph, reader = config.graph_encoder_config, config.qformer_config
    typer.echo(
        f"{report.folder}: {report.tensors} weights; GIN {graph.num_layers} x "
        f"{graph.hidden_size}, Q-Former {reader.num_layers} x {reader.hidden_size}, "
        f"{config.text_config.model_type} of width {config.text_config.hidden_size}; "
        f"projectors {config.projector_sharing}, prompts {config.prompt_style}"
    )
    done = card.get("conversion")
    if done is None or card.get("steps"):
        return
    heads = done["attention_heads"]
    typer.echo(f"attention heads: {heads['number']}, from {heads['from']}")
    typer.echo(f"language model: {done['language_model']}; row of <mol>: {done['molecule_row']}")
    if lora := done["lora"]:
        typer.echo(
            f"LoRA: {lora['from']} of rank {lora['r']}, {lora['modules']} modules, "
            f"scale {lora['scale']:g}, {lora['place']}"
        )
    if done["filled"]:
        typer.echo(
            f"filled from {done['filled']['from']}: {len(done['filled']['weights'])} weights"
        )
    if done["unused"]:
        typer.echo(f"known and not used: {len(done['unused'])} weights")
    for what in done["lacking"]:
        typer.echo(f"moltc: warning: not in these files: {what}", err=True)
    for what in done["contradictions"]:
        typer.echo(f"moltc: warning: {what}: sizes are those of the weights", err=True)
    if done["drawn"]:
        typer.echo("The projection is drawn: its answers are noise until it is trained.")
