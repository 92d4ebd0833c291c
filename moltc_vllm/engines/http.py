"""A running server as an `Engine`."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import httpx

from moltc_vllm.engines.affinity import HEADER, affinity_key
from moltc_vllm.tasks import Answer
from moltc_vllm.tasks.engine import Pair

_AWAY = frozenset({429, 500, 502, 503, 504})  # 500: of HAProxy, whose server has gone

_LONGEST_S = 120.0


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
        score: Ask only what there is to decide: labels and intervals, without the model's words.
        in_flight: Batches that are on their way at once, so that the server never waits for one.
        waits_s: Before each further attempt, where the server cannot be reached or is overloaded,
            or longer if it says so (``Retry-After``). By default minutes: a replica that died takes
            them to come again.
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
        score: bool = False,
        in_flight: int = 4,
        waits_s: Sequence[float] = (1.0, 4.0, 16.0, 30.0, 60.0, 60.0, 60.0),
    ) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self.model = model
        self.batch = batch
        self.beams = beams
        self.score = score
        self.in_flight = in_flight
        self._waits_s = tuple(waits_s)
        try:
            self.client = httpx.Client(
                base_url=url.rstrip("/").removesuffix("/v1"),
                timeout=timeout_s,
                headers={"authorization": f"Bearer {key}"} if key else {},
            )
        except httpx.InvalidURL as error:
            raise ServerError(f"{url} is no URL: {error}") from error

    def served(self) -> str:
        """Name of the model that answers.

        Raises:
            ServerError: If there is none of the name that was given, or none was and there are
                several.
        """
        # Adapters have a parent: they are chosen by the task.
        names = [one["id"] for one in self._listed("models") if not one.get("parent")]
        if self.model is not None:
            if self.model not in names:
                raise ServerError(f"there is no model {self.model!r}; there are {', '.join(names)}")
            return self.model
        if len(names) != 1:
            raise ServerError(f"name one of the models: {', '.join(names)}")
        return str(names[0])

    def tasks(self) -> list[str]:
        """Names of the tasks that the server answers.

        Raises:
            ServerError: If it is another kind of server.
        """
        return [one["id"] for one in self._listed("tasks")]

    def weights(self) -> str | None:
        """A checksum of the weights, if the server tells one.

        Raises:
            ServerError: If it is another kind of server.
        """
        with _understood():
            found = self._got("tasks").get("weights")
        return None if found is None else str(found)

    def _listed(self, what: str) -> list[dict[str, Any]]:
        with _understood():
            return [{**one, "id": str(one["id"])} for one in self._got(what)["data"]]

    def _got(self, what: str) -> dict[str, Any]:
        response = self.client.get(f"/v1/{what}")
        if response.is_error:
            raise ServerError(_message(response))
        content: dict[str, Any] = response.json()
        return content

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`.

        Raises:
            ServerError: If the server refuses a batch as a whole (unknown task, model, ...).
            httpx.HTTPError: If it cannot be reached, several times in a row.
        """
        source = iter(pairs)
        waiting: dict[Future[list[Answer]], list[Pair]] = {}
        over = threading.Event()
        with ThreadPoolExecutor(self.in_flight, thread_name_prefix="moltc-http") as pool:
            try:
                while True:
                    while len(waiting) < self.in_flight:
                        batch = list(itertools.islice(source, self.batch))
                        if not batch:
                            break
                        waiting[pool.submit(self._ask, task, batch, question, over)] = batch
                    if not waiting:
                        return
                    answered, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in answered:
                        yield from zip(waiting.pop(future), future.result(), strict=True)
            finally:
                over.set()
                for future in waiting:  # the caller stopped early, or a batch was refused
                    future.cancel()

    def _ask(
        self, task: str, batch: list[Pair], question: str | None, over: threading.Event
    ) -> list[Answer]:
        """The answers to a batch, in its order."""
        body: dict[str, Any] = {"task": task, "pairs": [list(pair.molecules) for pair in batch]}
        optional = {
            "model": self.model,
            "question": question,
            "beams": self.beams if self.beams > 1 else None,
            "score": self.score or None,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        # Batches with the same first molecule belong to the same replica, if there are several.
        response = self._post(body, {HEADER: affinity_key(batch[0].molecules[0])}, over)
        if response.is_error:
            raise ServerError(_message(response))
        with _understood():
            answers = [Answer.model_validate(one) for one in response.json()["data"]]
        if len(answers) != len(batch):
            raise ServerError(f"the server gave {len(answers)} answers to {len(batch)} pairs")
        return answers

    def _post(
        self, body: dict[str, Any], headers: dict[str, str], over: threading.Event
    ) -> httpx.Response:
        """The server's response; a server that is away for a while is asked again."""
        for wait_s in (*self._waits_s, None):
            least_s = 0.0
            try:
                response = self.client.post("/v1/interactions", json=body, headers=headers)
                if response.status_code not in _AWAY or wait_s is None or over.is_set():
                    return response
                least_s = _retry_after_s(response)
            except httpx.TransportError:
                if wait_s is None or over.is_set():
                    raise
            over.wait(max(wait_s, least_s))
        raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """A response of another form is the server's fault."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ServerError(f"the server is of another kind or version: {reason}") from error


def _retry_after_s(response: httpx.Response) -> float:
    """As the server wishes, within reason; dates, which the header may have, count as no wish."""
    wish = response.headers.get("retry-after", "")
    return min(float(wish), _LONGEST_S) if wish.isdecimal() else 0.0


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200]}"
