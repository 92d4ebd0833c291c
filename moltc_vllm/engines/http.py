"""HTTP client of a running server as an `Engine`."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import httpx

from moltc_vllm.engines.affinity import AFFINITY_HEADER, affinity_key
from moltc_vllm.tasks import Answer
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE, check_coverage
from moltc_vllm.utils.errors import one_line
from moltc_vllm.utils.standardization import AS_DRAWN, Standardization, check_standardization

# HAProxy answers 500 if the connection to its server is lost.
_RETRYABLE_STATUSES = frozenset({429, 500, 502, 503, 504})

_MAX_RETRY_AFTER_S = 120.0
_MAX_ERROR_CHARACTERS = 200


class ServerError(RuntimeError):
    """The server rejected a whole request, or is not a moltc-vllm server of this version."""


class HttpEngine:
    """Engine that sends batches of pairs to ``/v1/interactions``.

    Args:
        url: URL of the server, with or without ``/v1``.
        model: Served model name; default: the only one of the server.
        batch_size: Number of pairs in a request.
        api_key: Key for the ``Authorization`` header; default: the environment variable
            ``OPENAI_API_KEY``, as in other clients.
        timeout_s: Timeout of a request in seconds.
        beams: Width of the beam search; 1 is greedy decoding.
        score: Whether only the tokens that distinguish answers are generated: labels and
            intervals, without the model's text.
        coverage: Coverage of the prediction intervals of numeric answers. Servers before version
            0.2 know the default only.
        max_in_flight: Maximum number of concurrent requests; several keep the server busy.
        retry_delays_s: Delays before each further attempt in seconds, while the server cannot be
            reached or is overloaded; the server may ask for longer ones (``Retry-After``). The
            default covers the minutes that a failed replica needs to restart.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        batch_size: int = 200,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        beams: int = 1,
        score: bool = False,
        coverage: float = DEFAULT_COVERAGE,
        max_in_flight: int = 4,
        retry_delays_s: Sequence[float] = (1.0, 4.0, 16.0, 30.0, 60.0, 60.0, 60.0),
    ) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self.model = model
        self.batch_size = batch_size
        self.beams = beams
        self.score = score
        self.coverage = check_coverage(coverage)
        self.max_in_flight = max_in_flight
        self._retry_delays_s = tuple(retry_delays_s)
        try:
            self.client = httpx.Client(
                base_url=url.rstrip("/").removesuffix("/v1"),
                timeout=timeout_s,
                headers={"authorization": f"Bearer {key}"} if key else {},
            )
        except httpx.InvalidURL as error:
            raise ServerError(f"{url} is not a URL: {error}") from error

    def served_model(self) -> str:
        """Return the name of the model that answers.

        Raises:
            ServerError: If the server lacks the given model, or if no model was given and the
                server does not serve exactly one.
        """
        # Adapters have a parent; the server selects them by the task.
        names = [model["id"] for model in self._list("models") if not model.get("parent")]
        if self.model is not None:
            if self.model not in names:
                raise ServerError(f"there is no model {self.model!r}; there are {', '.join(names)}")
            return self.model
        if len(names) != 1:
            raise ServerError(f"name one of the models: {', '.join(names)}")
        return str(names[0])

    def tasks(self) -> list[str]:
        """Return the names of the tasks that the server answers.

        Raises:
            ServerError: If the server is not a moltc-vllm server.
        """
        return [task["id"] for task in self._list("tasks")]

    def ignores_order(self, task: str) -> bool:
        """See `moltc_vllm.tasks.engine.OrderAwareEngine`; false for servers before version 0.2.

        Raises:
            ServerError: If the server is not a moltc-vllm server.
        """
        return any(
            item["id"] == task and item.get("ignores_order", False) for item in self._list("tasks")
        )

    def standardization(self) -> Standardization:
        """Return how the server standardizes molecules; ``as-drawn`` before version 0.2.

        Raises:
            ServerError: If the server is not a moltc-vllm server.
        """
        with _malformed_response_as_server_error():
            return check_standardization(self._get("tasks").get("standardization", AS_DRAWN))

    def weights(self) -> str | None:
        """Return a checksum of the weights, or ``None`` if the server does not report one.

        Raises:
            ServerError: If the server is not a moltc-vllm server.
        """
        with _malformed_response_as_server_error():
            checksum = self._get("tasks").get("weights")
        return None if checksum is None else str(checksum)

    def _list(self, resource: str) -> list[dict[str, Any]]:
        with _malformed_response_as_server_error():
            return [{**item, "id": str(item["id"])} for item in self._get(resource)["data"]]

    def _get(self, resource: str) -> dict[str, Any]:
        response = self.client.get(f"/v1/{resource}")
        if response.is_error:
            raise ServerError(_error_message(response))
        content: dict[str, Any] = response.json()
        return content

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`.

        Raises:
            ServerError: If the server rejects a whole batch (unknown task, model, ...).
            httpx.HTTPError: If the server cannot be reached in any attempt.
        """
        remaining = iter(pairs)
        in_flight: dict[Future[list[Answer]], list[Pair]] = {}
        stop = threading.Event()
        with ThreadPoolExecutor(self.max_in_flight, thread_name_prefix="moltc-http") as pool:
            try:
                while True:
                    while len(in_flight) < self.max_in_flight:
                        batch = list(itertools.islice(remaining, self.batch_size))
                        if not batch:
                            break
                        future = pool.submit(self._answer_batch, task, batch, question, stop)
                        in_flight[future] = batch
                    if not in_flight:
                        return
                    finished, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                    for future in finished:
                        yield from zip(in_flight.pop(future), future.result(), strict=True)
            finally:
                stop.set()
                for future in in_flight:  # the caller stopped iterating, or a batch was rejected
                    future.cancel()

    def _answer_batch(
        self, task: str, batch: list[Pair], question: str | None, stop: threading.Event
    ) -> list[Answer]:
        """Post a batch of pairs and return its answers in order."""
        body: dict[str, Any] = {"task": task, "pairs": [list(pair.molecules) for pair in batch]}
        optional = {
            "model": self.model,
            "question": question,
            "beams": self.beams if self.beams > 1 else None,
            "score": self.score or None,
            "coverage": self.coverage if self.coverage != DEFAULT_COVERAGE else None,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        headers = {AFFINITY_HEADER: affinity_key(batch[0].molecules[0])}
        response = self._post_with_retries(body, headers, stop)
        if response.is_error:
            raise ServerError(_error_message(response))
        with _malformed_response_as_server_error():
            answers = [Answer.model_validate(answer) for answer in response.json()["data"]]
        if len(answers) != len(batch):
            raise ServerError(f"the server gave {len(answers)} answers to {len(batch)} pairs")
        return answers

    def _post_with_retries(
        self, body: dict[str, Any], headers: dict[str, str], stop: threading.Event
    ) -> httpx.Response:
        """Post a request, and retry while the server is unreachable or overloaded.

        Args:
            body: JSON body.
            headers: Additional headers.
            stop: Event that stops further attempts.
        """
        for delay_s in (*self._retry_delays_s, None):
            retry_after_s = 0.0
            try:
                response = self.client.post("/v1/interactions", json=body, headers=headers)
                is_retryable = response.status_code in _RETRYABLE_STATUSES
                if not is_retryable or delay_s is None or stop.is_set():
                    return response
                retry_after_s = _retry_after_s(response)
            except httpx.TransportError:
                if delay_s is None or stop.is_set():
                    raise
            stop.wait(max(delay_s, retry_after_s))
        raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def _malformed_response_as_server_error() -> Iterator[None]:
    """Convert errors of parsing a response to `ServerError`."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        reason = one_line(error)[:_MAX_ERROR_CHARACTERS]
        message = f"the response is not that of a moltc-vllm server of this version: {reason}"
        raise ServerError(message) from error


def _retry_after_s(response: httpx.Response) -> float:
    """Return the seconds in ``Retry-After``, at most two minutes; dates are ignored."""
    value = response.headers.get("retry-after", "")
    return min(float(value), _MAX_RETRY_AFTER_S) if value.isdecimal() else 0.0


def _error_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:_MAX_ERROR_CHARACTERS]}"
