"""Clients that ask a server without a pause, and what they get."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from typing import Any, NamedTuple

import httpx
from common import DATA, SETS, read_smiles

INTERACTIONS = "/v1/interactions"
NO_LIMIT = httpx.Timeout(300.0)


def pairs_of(first: int, second: int, seed: int = 0) -> list[tuple[str, str]]:
    """A product of drugs and library molecules."""
    rng = random.Random(seed)
    chosen = [
        rng.sample(list(itertools.islice(read_smiles(DATA / SETS[name]), 2_000)), most)
        for name, most in (("approved", first), ("zinc250k", second))
    ]
    return list(itertools.product(*chosen))


class Result(NamedTuple):
    """One request."""

    begin: float
    end: float
    status: str


class Load:
    """Clients that ask without a pause, without trying again, and count what they get.

    Args:
        url: Of the server.
        callers: Clients that wait for a whole answer.
        streams: Clients that read a stream.
        size: Pairs of a caller's request.
        **more: Fields of it.
    """

    def __init__(
        self, url: str, callers: int = 4, streams: int = 2, size: int = 5, **more: Any
    ) -> None:
        self._size, self._more = size, more
        self._url = url
        self._over = threading.Event()
        self.calls: list[Result] = []
        self.streams: list[Result] = []
        self._threads = [
            *(threading.Thread(target=self._call, args=(number,)) for number in range(callers)),
            *(threading.Thread(target=self._stream, args=(number,)) for number in range(streams)),
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        pairs = pairs_of(20, 20, seed=number)
        with httpx.Client(base_url=self._url, timeout=NO_LIMIT) as client:
            while not self._over.is_set():
                some = random.sample(pairs, self._size)
                body = {"task": "solvation", "pairs": some, **self._more}
                begin = time.monotonic()
                status = _status(client, body)
                self.calls.append(Result(begin, time.monotonic(), status))

    def _stream(self, number: int) -> None:
        pairs = pairs_of(20, 20, seed=100 + number)
        with httpx.Client(base_url=self._url, timeout=NO_LIMIT) as client:
            while not self._over.is_set():
                first, second = random.choice(pairs)
                content = [
                    {"type": "molecule", "molecule": {"smiles": first}},
                    {"type": "molecule", "molecule": {"smiles": second}},
                    {"type": "text", "text": "What is the solvation free energy?"},
                ]
                body = {
                    "model": "moltc",
                    "messages": [{"role": "user", "content": content}],
                    "task": "solvation",
                    "stream": True,
                    "max_tokens": 32,
                }
                begin = time.monotonic()
                status = _stream_status(client, body)
                self.streams.append(Result(begin, time.monotonic(), status))


def _status(client: httpx.Client, body: dict[str, Any]) -> str:
    try:
        return str(client.post(INTERACTIONS, json=body).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def _stream_status(client: httpx.Client, body: dict[str, Any]) -> str:
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            last = ""
            for line in response.iter_lines():
                last = line or last
            if response.status_code != 200:
                return str(response.status_code)
            return "200" if last == "data: [DONE]" else "cut off"
    except httpx.HTTPError as error:
        return type(error).__name__


def counted(results: list[Result], begin: float) -> dict[str, int]:
    """What became of those that were in flight then, and of all after them."""
    return dict(Counter(one.status for one in list(results) if one.end >= begin))
