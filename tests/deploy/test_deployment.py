"""Two real replicas behind Ray Serve: the single server's tests, and kills under load (slow)."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from moltc_vllm.plugin.server.server_process import free_port
from tests.server import MODEL

ROOT = Path(__file__).parents[2]
FIRST_MOLECULES = ["C" * length + "O" for length in range(1, 21)]
"""First molecules of pairs, enough of them that both replicas get some."""


@pytest.fixture(scope="module")
def deployment(tiny, tmp_path_factory):
    """Process and URL of ``moltc deploy`` with cpu.yaml, the tiny model and a free port."""
    folder = tmp_path_factory.mktemp("deployed")
    content = yaml.safe_load((ROOT / "serve_configs" / "cpu.yaml").read_text())
    args = content["applications"][0]["args"]
    args["model"], args["flags"]["served-model-name"] = str(tiny), MODEL
    (folder / "cpu.yaml").write_text(yaml.safe_dump(content))
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "moltc_vllm.cli", "deploy", str(folder / "cpu.yaml")),
                *("--port", str(port), "--cpus", "4"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        )
    try:
        wait_until(
            lambda: b"replicas answer" in log.read_bytes() or process.poll() is not None, 400
        )
        assert process.poll() is None, log.read_text()[-3000:]
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(200)


def wait_until(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.2)


def children_named(process, name):
    children = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # the child may end at any time
            if name in " ".join(child.cmdline()[:1]):
                children.append(child)
    return children


def engines(process):
    """Engine processes that are up, which is when they have a worker."""
    running = []
    for engine in children_named(process, "EngineCore"):
        with contextlib.suppress(psutil.Error):
            running += [engine] if engine.children() else []
    return running


class RequestLoop:
    """Clients that send requests continuously and never retry.

    Attributes:
        statuses: Status code of every response.
    """

    def __init__(self, url):
        self.url, self.finished, self.statuses = url, threading.Event(), []

    def send_requests(self):
        with httpx.Client(base_url=self.url, timeout=300) as client:
            while not self.finished.is_set():
                body = {"task": "solvation", "pairs": [[random.choice(FIRST_MOLECULES), "O"]]}
                response = client.post("/v1/interactions", json=body)
                self.statuses.append(response.status_code)

    def __enter__(self):
        self.threads = [threading.Thread(target=self.send_requests) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.finished.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
def test_replicas_pass_tests_of_single_server(deployment):
    _, url = deployment
    # In the order of the whole suite: the first file counts molecules that no request had before.
    names = ("caching", "interactions", "malformed", "openai_client", "refused")
    files = [f"tests/integration/test_{name}.py" for name in names]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files],
        cwd=ROOT,
        env={**os.environ, "MOLTC_TEST_URL": url},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EngineCore", "ServeReplica:moltc"])
def test_killed_process_is_replaced_without_failed_request(deployment, name):
    process, url = deployment
    pids_before = {engine.pid for engine in engines(process)}
    with RequestLoop(url) as requests:
        wait_until(lambda: len(requests.statuses) > 20, 60)
        children_named(process, name)[0].send_signal(signal.SIGKILL)
        wait_until(
            lambda: (
                len(engines(process)) == 2
                and {engine.pid for engine in engines(process)} != pids_before
            ),
            300,
        )
        count = len(requests.statuses)
        wait_until(lambda: len(requests.statuses) > count + 20, 60)
    assert set(requests.statuses) == {200}


@pytest.mark.slow
def test_sigterm_finishes_requests_and_ends_all_processes(deployment):
    process, url = deployment
    children = psutil.Process(process.pid).children(recursive=True)
    responses = []

    def send_long_request():
        pairs = [["C" * length, "O" * 3] for length in range(1, 200)] * 5
        body = {"task": "solvation", "pairs": pairs, "constrained": False, "max_tokens": 60}
        responses.append(httpx.post(f"{url}/v1/interactions", json=body, timeout=300))

    thread = threading.Thread(target=send_long_request)
    thread.start()
    time.sleep(2)
    assert not responses
    process.send_signal(signal.SIGTERM)
    thread.join()
    assert responses[0].status_code == 200
    assert len(responses[0].json()["data"]) == 995
    assert process.wait(120) == 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
