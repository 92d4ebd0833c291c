"""Clients of a running server for the integration tests."""

from dataclasses import dataclass

import httpx
import openai

MODEL = "moltc"


@dataclass
class Server:
    url: str

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120)

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def metric(self, name: str) -> float:
        """Return the sum of a counter over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        values = [
            float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        ]
        return sum(values)
