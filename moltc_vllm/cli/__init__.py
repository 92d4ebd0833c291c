"""The command ``moltc``: one module per subcommand, heavy imports inside the commands."""

from __future__ import annotations

import typer

from moltc_vllm._version import __version__
from moltc_vllm.cli import (
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
    train,
)

app = typer.Typer(
    name="moltc",
    help="A language model for pairs of molecules, served by vLLM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("init")(init.init)
app.command("convert")(convert.convert)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("screen")(screen.screen)
# Everything after the folder belongs to vLLM: unknown options are passed on.
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
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point of ``moltc``."""
    app()
