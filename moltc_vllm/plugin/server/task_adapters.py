"""Which of the served models answers a request, and which task it is asked.

``moltc:ddi`` is the adapter of the task ``ddi`` on the served model ``moltc``. Whoever names one of
the two need not name the other. In vLLM the model's name chooses the adapter, but the renderer,
which has to know the task where projectors depend on it, never sees that name. So the middleware
fits both to each other, and leaves the task where the renderer finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vllm.exceptions import VLLMValidationError

from moltc_vllm.models.config import MoltcConfig

# Routes and renderer run in the HTTP request's own asyncio task, or in tasks it makes, which
# inherit its context.
_ASKED: ContextVar[str | VLLMValidationError | None] = ContextVar("moltc_asked", default=None)


@contextmanager
def request_task_scope(task: str | VLLMValidationError | None) -> Iterator[None]:
    """Render with this task; or with this error, which the client gets from vLLM's own handlers."""
    token = _ASKED.set(task)
    try:
        yield
    finally:
        _ASKED.reset(token)


def current_request_task() -> str | None:
    """The task of the request that is being rendered, where it names one outside its molecules.

    Raises:
        VLLMValidationError: If there is something wrong with it.
    """
    task = _ASKED.get()
    if isinstance(task, VLLMValidationError):
        raise task
    return task


class TaskAdapters:
    """Tasks and their adapters on one server.

    Args:
        models: vLLM's table of served names and adapters; adapters may come and go in it.
        config: The checkpoint's configuration.
    """

    def __init__(self, models: Any, config: MoltcConfig) -> None:
        self.models = models
        self.config = config

    def any(self) -> bool:
        """Whether there are adapters at all, of tasks or others."""
        return bool(self.models.lora_requests)

    def name_of(self, task: str) -> str | None:
        """The served name of a task's adapter, if it has one."""
        name = f"{self._base}:{task}"
        return name if task in self.config.tasks and name in self.models.lora_requests else None

    def task_of(self, model: str | None) -> str | None:
        """The task whose adapter a model is, if it is one."""
        base, _, task = (model or "").rpartition(":")
        return task if base == self._base and task in self.config.tasks else None

    def choose(self, model: str | None, task: str | None) -> tuple[str | None, str | None]:
        """Fit model and task of a request to each other.

        A task's adapter goes before the base model. A model that is no task's adapter is left as
        it is, and answers any task.

        Args:
            model: Served name, as the request has it; ``None``: the base model.
            task: Name of a task.

        Returns:
            The model that shall answer, and the task it is asked.

        Raises:
            VLLMValidationError: If the checkpoint has no such task, or the model is another's
                adapter: what it says to this one would be an answer, but to another question.
        """
        if task is not None and task not in self.config.tasks:
            raise VLLMValidationError(
                f"unknown task {task!r:.100}; this checkpoint has {', '.join(self.config.tasks)}",
                parameter="task",
            )
        own = self.task_of(model)
        if own is not None and task not in (own, None):
            instead = self.name_of(str(task)) or self._base
            raise VLLMValidationError(
                f"model {model!r} is the adapter of task {own!r}, not of {task!r}: "
                f"name {instead!r} or no model",
                parameter="model",
            )
        if task is not None and (not model or self.models.is_base_model(model)):
            return self.name_of(task) or model, task
        return model, task or own

    @property
    def _base(self) -> str:
        return str(self.models.base_model_paths[0].name)
