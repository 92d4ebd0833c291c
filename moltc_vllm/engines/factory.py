"""Factory of engines, for the commands and the Python API."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moltc_vllm.utils.coverage import DEFAULT_COVERAGE, check_coverage
from moltc_vllm.utils.standardization import AS_DRAWN, Standardization, check_standardization

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine


class EngineName(enum.StrEnum):
    """Kinds of engines: vLLM or plain PyTorch in this process, or a running server."""

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
    coverage: float = DEFAULT_COVERAGE,
    standardize: Standardization | None = None,
) -> Engine:
    """Open an engine.

    Args:
        model: Checkpoint folder of an engine in this process; default: the shipped one.
        endpoint: URL of a running server, which is used in place of ``model`` and ``name``.
        name: Kind of engine.
        beams: Width of the beam search; 1 is greedy decoding.
        pad_query: Whether the first token is predicted from a pad token, as in the published
            evaluation; supported by the engine ``torch`` only.
        score: Whether only the tokens that distinguish answers are generated; the engine ``torch``
            always generates the whole answer.
        coverage: Coverage of the prediction intervals of numeric answers.
        standardize: How molecules are standardized; default: the choice of the checkpoint. A server
            has made its choice, so any other one is an error.

    Raises:
        CheckpointError: If the model's folder is not a complete checkpoint.
        ServerError: If the server does not say how it standardizes molecules.
        ValueError: If options contradict each other.
        httpx.HTTPError: If the server cannot be reached.
    """
    is_remote = endpoint is not None or name is EngineName.http
    is_torch = not is_remote and name is EngineName.torch
    # Pass only options that differ from the engine's defaults.
    options: dict[str, Any] = {"beams": beams} if beams != 1 else {}
    if check_coverage(coverage) != DEFAULT_COVERAGE:
        options["coverage"] = coverage
    if pad_query:
        if not is_torch:
            raise ValueError("--pad-query needs `--engine torch`; other engines do not support it")
        options["pad_query"] = True
    if score and not is_torch:
        options["score"] = True
    if is_remote:
        if endpoint is not None and standardize is not None:
            effective_standardization(None, endpoint, standardize)
        return _open_http_engine(endpoint, options)
    if standardize is not None:
        options["standardize"] = standardize
    return _open_local_engine(model, is_torch, options)


def _open_http_engine(endpoint: str | None, options: dict[str, Any]) -> Engine:
    from moltc_vllm.engines.http import HttpEngine

    if endpoint is None:
        raise ValueError("the engine http needs an endpoint: the URL of a running server")
    return HttpEngine(endpoint, **options)


def _open_local_engine(model: Path | None, is_torch: bool, options: dict[str, Any]) -> Engine:
    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.checkpoint import load_config

    folder = model or shipped_checkpoint()
    load_config(folder)  # fails before the slow import of vLLM, with a shorter message
    if is_torch:
        from moltc_vllm.models.torch_engine import TorchEngine

        return TorchEngine(folder, **options)
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    return VllmEngine(folder, **options)


def effective_standardization(
    model: Path | None = None,
    endpoint: str | None = None,
    standardize: Standardization | None = None,
) -> Standardization:
    """Return how molecules are standardized.

    Args:
        model: Checkpoint folder, if there is no endpoint; default: the shipped one.
        endpoint: URL of a running server.
        standardize: Mode that the user requests; default: the choice of the checkpoint or server.

    Raises:
        CheckpointError: If the folder is not a checkpoint.
        ServerError: If the server is not a moltc-vllm server.
        ValueError: If the mode is unknown, or the server was started with another one.
        httpx.HTTPError: If the server cannot be reached.
    """
    requested = None if standardize is None else check_standardization(standardize)
    if endpoint is not None:
        from moltc_vllm.engines.http import HttpEngine

        served = HttpEngine(endpoint).standardization()
        if requested not in (None, served):
            raise ValueError(
                f"the server uses standardization {served!r}, not {requested!r}: start it with "
                f"`moltc serve --standardize {requested}`"
            )
        return served
    if requested is not None:
        return requested
    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.checkpoint import load_config

    return load_config(model or shipped_checkpoint()).standardization


def describe_model(
    task: str,
    model: Path | None = None,
    endpoint: str | None = None,
    standardize: Standardization | None = None,
) -> dict[str, Any]:
    """Describe the model that answers: its name and a checksum of its folder or weights.

    Args:
        task: Task the model must support.
        model: Checkpoint folder, if there is no endpoint; default: the shipped one.
        endpoint: URL of a running server.
        standardize: How molecules are standardized; default: the choice of the checkpoint. It is
            part of the description unless molecules are used as drawn, as in version 0.1.

    Raises:
        CheckpointError: If the folder is not a checkpoint.
        ServerError: If the server does not serve exactly one model.
        ValueError: If the model does not support the task, or a server standardizes otherwise.
        httpx.HTTPError: If the server cannot be reached.
    """
    if endpoint is not None:
        from moltc_vllm.engines.http import HttpEngine

        server = HttpEngine(endpoint)
        description = {"served": server.served_model(), "weights": server.weights()}
    else:
        from moltc_vllm.checkpoints.shipped import shipped_checkpoint
        from moltc_vllm.models.checkpoint import folder_checksum

        folder = model or shipped_checkpoint()
        description = {"name": folder.resolve().name, "sha256": folder_checksum(folder)}
    tasks = model_tasks(model, endpoint)
    if tasks and task not in tasks:
        raise ValueError(f"the model does not answer {task!r}, only {', '.join(tasks)}")
    mode = effective_standardization(model, endpoint, standardize)
    return description if mode == AS_DRAWN else {**description, "standardization": mode}


def model_tasks(model: Path | None = None, endpoint: str | None = None) -> list[str]:
    """Return the names of the tasks that a model answers; empty if it does not list them.

    Args:
        model: Checkpoint folder, if there is no endpoint; default: the shipped one.
        endpoint: URL of a running server.

    Raises:
        CheckpointError: If the folder is not a checkpoint.
        ServerError: If the server does not answer the request.
        httpx.HTTPError: If the server cannot be reached.
    """
    if endpoint is not None:
        from moltc_vllm.engines.http import HttpEngine

        return HttpEngine(endpoint).tasks()
    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.checkpoint import load_config

    return list(load_config(model or shipped_checkpoint()).tasks)
