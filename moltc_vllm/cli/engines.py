"""Where answers are computed, as the commands' options choose it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moltc_vllm.cli.messages import fail

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine


class EngineName(enum.StrEnum):
    """Where the answer is computed."""

    vllm = "vllm"
    torch = "torch"


def open_engine(
    model: Path | None,
    endpoint: str | None,
    name: EngineName,
    *,
    beams: int = 1,
    pad_query: bool = False,
    score: bool = False,
) -> Engine:
    """The engine that the options of a command name; the command ends where they are wrong.

    Args:
        model: Checkpoint folder, if there is no endpoint; default: the shipped one.
        endpoint: URL of a running server; goes before everything else.
        name: Which engine, if there is no endpoint.
        beams: Width of the beam search; 1 is greedy.
        pad_query: Of plain torch only.
        score: Ask only what there is to decide; plain torch always asks for the whole answer.
    """
    # What an engine does by default it is not told.
    options: dict[str, Any] = {"beams": beams} if beams != 1 else {}
    if pad_query:
        if endpoint is not None or name is not EngineName.torch:
            fail("the query can be padded with `--engine torch` only")
        options["pad_query"] = True
    if score and (endpoint is not None or name is not EngineName.torch):
        options["score"] = True
    if endpoint is not None:
        from moltc_vllm.screen import HttpEngine

        return HttpEngine(endpoint, **options)
    from moltc_vllm.models.checkpoint import CheckpointError, load_config
    from moltc_vllm.shipped import shipped_checkpoint

    if model is None:
        model = shipped_checkpoint()

    try:
        load_config(model)  # first: vLLM would say the same after seconds, and at length
        if name is EngineName.torch:
            from moltc_vllm.models.engine import TorchEngine

            return TorchEngine(model, **options)
        from moltc_vllm.plugin.engine import VllmEngine

        return VllmEngine(model, **options)
    except CheckpointError as error:
        fail(str(error))
