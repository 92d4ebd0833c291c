"""One real server for this folder; ``MOLTC_TEST_URL`` names another one to test instead."""

import os

import pytest

from moltc_vllm.plugin.server.server_process import ServerProcess
from tests.server import MODEL, Server


@pytest.fixture(scope="package")
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
