"""Where answers are computed: one way to open any engine, for the commands and for Python."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine


class EngineName(enum.StrEnum):
    """Where the answer is computed."""

    vllm = "vllm"
    torch = "torch"
    http = "http"


def open_engine(
    model: Path | None = None,
    endpoint: str | None = None,
    name: EngineName = EngineName.vllm,
    *,
    beams: int = 1,
    pad_query: bool = False,
    score: bool = False,
) -> Engine:
    """An engine, ready to be asked.

    Args:
        model: Checkpoint folder, if there is no endpoint; default: the shipped one.
        endpoint: URL of a running server; goes before everything else.
        name: Which engine, if there is no endpoint.
        beams: Width of the beam search; 1 is greedy.
        pad_query: Predict the first token from a pad; of plain torch only.
        score: Ask only what there is to decide; plain torch always asks for the whole answer.

    Raises:
        CheckpointError: If the model's folder is none, or not whole.
        ValueError: If options do not go together.
    """
    # What an engine does by default it is not told.
    options: dict[str, Any] = {"beams": beams} if beams != 1 else {}
    away = endpoint is not None or name is EngineName.http
    if pad_query:
        if away or name is not EngineName.torch:
            raise ValueError("the query can be padded with `--engine torch` only")
        options["pad_query"] = True
    if score and (away or name is not EngineName.torch):
        options["score"] = True
    if away:
        from moltc_vllm.engines.http import HttpEngine

        if endpoint is None:
            raise ValueError("the engine http needs an endpoint: the URL of a running server")
        return HttpEngine(endpoint, **options)
    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.checkpoint import load_config

    if model is None:
        model = shipped_checkpoint()
    load_config(model)  # first: vLLM would say the same after seconds, and at length
    if name is EngineName.torch:
        from moltc_vllm.models.torch_engine import TorchEngine

        return TorchEngine(model, **options)
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    return VllmEngine(model, **options)


def describe_model(
    task: str, model: Path | None = None, endpoint: str | None = None
) -> dict[str, Any]:
    """What tells a model from another one: its files, or a server's name and weights.

    Args:
        task: That it is to be asked about.
        model: Checkpoint folder, if there is no endpoint; default: the shipped one.
        endpoint: URL of a running server.

    Raises:
        CheckpointError: If the folder is none.
        ServerError: If the server has no model, or several.
        ValueError: If the model does not answer the task.
        httpx.HTTPError: If the server cannot be reached.
    """
    if endpoint is not None:
        from moltc_vllm.engines.http import HttpEngine

        server = HttpEngine(endpoint)
        described = {"served": server.served(), "weights": server.weights()}
        tasks = server.tasks()
    else:
        from moltc_vllm.checkpoints.shipped import shipped_checkpoint
        from moltc_vllm.models.checkpoint import folder_checksum, load_config

        folder = model or shipped_checkpoint()
        tasks = load_config(folder).tasks
        described = {"name": folder.resolve().name, "sha256": folder_checksum(folder)}
    if tasks and task not in tasks:
        raise ValueError(f"the model does not answer {task!r}, only {', '.join(tasks)}")
    return described
