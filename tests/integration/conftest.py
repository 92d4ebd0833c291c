"""Server shared by the tests of this folder, or the running one at ``MOLTC_TEST_URL``."""

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
    # The tests of tests/plugin set this variable to 0 for their own process.
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    process = ServerProcess(tiny, ["--served-model-name", MODEL], log=log, environment=environment)
    with process:
        yield Server(process.url)
