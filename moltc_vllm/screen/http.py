"""A running server as an `Engine`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from moltc_vllm.tasks import Answer
from moltc_vllm.tasks.engine import Pair


class ServerError(RuntimeError):
    """The server refused a request as a whole; its own message is kept."""


class HttpEngine:
    """Sends batches of pairs to ``/v1/interactions``.

    Args:
        url: Of the server, with or without ``/v1``.
        model: Served name; default: the server's only one.
        batch: Pairs in a request.
        api_key: Default: the environment's ``OPENAI_API_KEY``, as other clients do.
        timeout_s: For one batch.
        beams: Answers are searched with so many beams; 1: greedily.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        batch: int = 200,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        beams: int = 1,
    ) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self.model = model
        self.batch = batch
        self.beams = beams
        self.client = httpx.Client(
            base_url=url.rstrip("/").removesuffix("/v1"),
            timeout=timeout_s,
            headers={"authorization": f"Bearer {key}"} if key else {},
        )

    def served(self) -> str:
        """Name of the model that answers.

        Raises:
            ServerError: If there is none of the name that was given, or none was and there are
                several.
        """
        response = self.client.get("/v1/models")
        if response.is_error:
            raise ServerError(_message(response))
        # Adapters have a parent: they are chosen by the task.
        names = [one["id"] for one in response.json()["data"] if not one.get("parent")]
        if self.model is not None:
            if self.model not in names:
                raise ServerError(f"there is no model {self.model!r}; there are {', '.join(names)}")
            return self.model
        if len(names) != 1:
            raise ServerError(f"name one of the models: {', '.join(names)}")
        return str(names[0])

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`.

        Raises:
            ServerError: If the server refuses a batch as a whole (unknown task, model, ...).
        """
        source = iter(pairs)
        while batch := list(itertools.islice(source, self.batch)):
            body: dict[str, Any] = {"task": task, "pairs": [list(pair.molecules) for pair in batch]}
            beams = self.beams if self.beams > 1 else None
            optional: dict[str, Any] = {
                "model": self.model,
                "question": question,
                "beams": beams,
            }
            body |= {name: value for name, value in optional.items() if value is not None}
            response = self.client.post("/v1/interactions", json=body)
            if response.is_error:
                raise ServerError(_message(response))
            answers = [Answer.model_validate(one) for one in response.json()["data"]]
            yield from zip(batch, answers, strict=True)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200]}"
