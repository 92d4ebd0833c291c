"""Clients that send requests to a server continuously and record the responses."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx
from common import DATA, MOLECULE_FILES, read_smiles

INTERACTIONS = "/v1/interactions"
LONG_TIMEOUT = httpx.Timeout(300.0)


def sample_pairs(first: int, second: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sample approved drugs and library molecules, and return all pairs of them.

    Args:
        first: Number of drugs.
        second: Number of library molecules.
        seed: Seed of the sample.
    """
    rng = random.Random(seed)
    samples = [
        rng.sample(list(itertools.islice(read_smiles(DATA / MOLECULE_FILES[name]), 2_000)), count)
        for name, count in (("approved", first), ("zinc250k", second))
    ]
    return list(itertools.product(*samples))


class RequestRecord(NamedTuple):
    """Begin and end of a request (monotonic clock, in seconds) and its HTTP status or error."""

    begin: float
    end: float
    status: str


class RequestLoop:
    """Clients that send requests without pauses or retries, in threads of a context manager.

    Args:
        url: URL of the server.
        callers: Number of clients that wait for a whole response.
        streams: Number of clients that read a streamed response.
        size: Number of pairs per request of a caller.
        **fields: Further fields of a caller's requests.

    Attributes:
        calls: Records of the callers' requests.
        stream_calls: Records of the streamed requests.
    """

    def __init__(
        self, url: str, callers: int = 4, streams: int = 2, size: int = 5, **fields: Any
    ) -> None:
        self.calls: list[RequestRecord] = []
        self.stream_calls: list[RequestRecord] = []
        self._url, self._size, self._fields = url, size, fields
        self._finished = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._run_caller, args=(seed,)) for seed in range(callers)),
            *(threading.Thread(target=self._run_stream, args=(seed,)) for seed in range(streams)),
        ]

    def __enter__(self) -> RequestLoop:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        for thread in self._threads:
            thread.join()

    @property
    def all_calls(self) -> list[RequestRecord]:
        """Records of all requests so far."""
        return self.calls + self.stream_calls

    def _run_caller(self, seed: int) -> None:
        pairs = sample_pairs(20, 20, seed=seed)
        with httpx.Client(base_url=self._url, timeout=LONG_TIMEOUT) as client:
            while not self._finished.is_set():
                sample = random.sample(pairs, self._size)
                body = {"task": "solvation", "pairs": sample, **self._fields}
                begin = time.monotonic()
                status = _call(client, body)
                self.calls.append(RequestRecord(begin, time.monotonic(), status))

    def _run_stream(self, seed: int) -> None:
        pairs = sample_pairs(20, 20, seed=100 + seed)
        with httpx.Client(base_url=self._url, timeout=LONG_TIMEOUT) as client:
            while not self._finished.is_set():
                body = _chat_body(*random.choice(pairs))
                begin = time.monotonic()
                status = _call_stream(client, body)
                self.stream_calls.append(RequestRecord(begin, time.monotonic(), status))


def _chat_body(first: str, second: str) -> dict[str, Any]:
    content = [
        {"type": "molecule", "molecule": {"smiles": first}},
        {"type": "molecule", "molecule": {"smiles": second}},
        {"type": "text", "text": "What is the solvation free energy?"},
    ]
    return {
        "model": "moltc",
        "messages": [{"role": "user", "content": content}],
        "task": "solvation",
        "stream": True,
        "max_tokens": 32,
    }


def _call(client: httpx.Client, body: dict[str, Any]) -> str:
    try:
        return str(client.post(INTERACTIONS, json=body).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def _call_stream(client: httpx.Client, body: dict[str, Any]) -> str:
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            last_line = ""
            for line in response.iter_lines():
                last_line = line or last_line
            if response.status_code != 200:
                return str(response.status_code)
            return "200" if last_line == "data: [DONE]" else "cut off"
    except httpx.HTTPError as error:
        return type(error).__name__


def count_statuses(records: Iterable[RequestRecord], since: float = 0.0) -> dict[str, int]:
    """Count the requests that ended after a time, by status.

    Args:
        records: Records of requests.
        since: Time on the monotonic clock, in seconds.
    """
    return dict(Counter(record.status for record in list(records) if record.end >= since))
