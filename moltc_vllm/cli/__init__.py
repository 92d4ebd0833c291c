"""The command ``moltc``; each subcommand is a module that imports heavy packages when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from moltc_vllm._version import __version__
from moltc_vllm.cli import (
    calibrate,
    convert,
    data,
    demo,
    deploy,
    doctor,
    evaluate,
    init,
    predict,
    screen,
    serve,
    tasks,
    train,
)

app = typer.Typer(
    name="moltc",
    help="Predict properties and interactions of pairs of molecules with MolTC, served by vLLM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("init")(init.init)
app.command("convert")(convert.convert)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("tasks")(tasks.tasks)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("screen")(screen.screen)
# All arguments are passed on to vLLM, which has its own parser.
app.command(
    "serve",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
    },
)(serve.serve)
app.command("deploy")(deploy.deploy)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


@app.command("version")
def show_version() -> None:
    """Print the version of moltc-vllm."""
    typer.echo(__version__)


def _print_version_and_exit(is_given: bool) -> None:
    if is_given:
        show_version()
        raise typer.Exit


@app.callback()
def moltc(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version of moltc-vllm and exit.",
            callback=_print_version_and_exit,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Parse the options in front of a subcommand."""


def main() -> None:
    """Run the command (entry point ``moltc``)."""
    app()
