"""Choice of the adapter that answers a request, and of the request's task.

``moltc:ddi`` is the adapter of the task ``ddi`` on the served model ``moltc``. A request may name
the adapter, the task or both. vLLM chooses the adapter by the request's model name, but its
renderer, which needs the task where projectors depend on it, never sees that name. The middleware
therefore completes the request's model and task and stores the task for the renderer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vllm.exceptions import VLLMValidationError

from moltc_vllm.models.config import MoltcConfig

# Routes and renderer run in the HTTP request's own asyncio task or in tasks that it creates, which
# inherit its context.
_REQUEST_TASK: ContextVar[str | VLLMValidationError | None] = ContextVar(
    "moltc_request_task", default=None
)


@contextmanager
def request_task_scope(task: str | VLLMValidationError | None) -> Iterator[None]:
    """Set the task of the current HTTP request for the renderer.

    Args:
        task: Name of the task; or an error for `current_request_task` to raise, because vLLM's
            exception handlers do not see errors of a middleware.
    """
    token = _REQUEST_TASK.set(task)
    try:
        yield
    finally:
        _REQUEST_TASK.reset(token)


def current_request_task() -> str | None:
    """Return the task that the current HTTP request names, if any.

    Raises:
        VLLMValidationError: If the request's task is invalid.
    """
    task = _REQUEST_TASK.get()
    if isinstance(task, VLLMValidationError):
        raise task
    return task


class TaskAdapters:
    """Tasks and their adapters on one server.

    Args:
        models: Table of served model names and adapters of vLLM; vLLM may load and unload adapters.
        config: Configuration of the checkpoint.
    """

    def __init__(self, models: Any, config: MoltcConfig) -> None:
        self.models = models
        self.config = config

    def has_adapters(self) -> bool:
        """Return whether any adapter is loaded, of a task or not."""
        return bool(self.models.lora_requests)

    def adapter_name(self, task: str) -> str | None:
        """Return the served name of a task's adapter, or ``None`` if it has no adapter."""
        name = f"{self._base_model}:{task}"
        return name if task in self.config.tasks and name in self.models.lora_requests else None

    def task_of_model(self, model: str | None) -> str | None:
        """Return the task of a model name if that is a task's adapter."""
        base_model, _, task = (model or "").rpartition(":")
        return task if base_model == self._base_model and task in self.config.tasks else None

    def resolve(self, model: str | None, task: str | None) -> tuple[str | None, str | None]:
        """Complete a request's model by its task, and its task by its model.

        A task's adapter is preferred to the base model. Any other adapter may answer any task.

        Args:
            model: Served model name of the request; ``None`` is the base model.
            task: Name of the request's task, if it names one.

        Returns:
            Model that answers, and task.

        Raises:
            VLLMValidationError: If the checkpoint does not have the task, or the model is the
                adapter of another task.
        """
        if task is not None and task not in self.config.tasks:
            raise VLLMValidationError(
                f"unknown task {task!r:.100}; this checkpoint has {', '.join(self.config.tasks)}",
                parameter="task",
            )
        model_task = self.task_of_model(model)
        if model_task is not None and task not in (model_task, None):
            alternative = self.adapter_name(str(task)) or self._base_model
            raise VLLMValidationError(
                f"model {model!r} is the adapter of task {model_task!r}, not of {task!r}: "
                f"name {alternative!r} or no model",
                parameter="model",
            )
        if task is not None and (not model or self.models.is_base_model(model)):
            return self.adapter_name(task) or model, task
        return model, task or model_task

    @property
    def _base_model(self) -> str:
        return str(self.models.base_model_paths[0].name)
