"""One real server for the whole suite; ``MOLTC_TEST_URL`` names another one to test instead."""

import os
from dataclasses import dataclass

import httpx
import openai
import pytest

from moltc_vllm.plugin.server_process import ServerProcess

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
        """Sum of a counter over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        values = [
            float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        ]
        return sum(values)


@pytest.fixture(scope="session")
def server(tiny, tmp_path_factory):
    if url := os.environ.get("MOLTC_TEST_URL"):
        yield Server(url)
        return
    log = tmp_path_factory.mktemp("server") / "server.log"
    # The offline tests' setting must not reach the server.
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    process = ServerProcess(tiny, ["--served-model-name", MODEL], log=log, environment=environment)
    with process:
        yield Server(process.url)
