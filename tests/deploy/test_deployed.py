"""Two real replicas behind Ray Serve (slow): the single server's tests, and what dies meanwhile."""

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
FIRST = ["C" * length + "O" for length in range(1, 21)]  # of both replicas


@pytest.fixture(scope="module")
def deployed(tiny, tmp_path_factory):
    """``moltc deploy`` with cpu.yaml, but for the model and the port; its process and URL."""
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
        until(lambda: b"replicas answer" in log.read_bytes() or process.poll() is not None, 400)
        assert process.poll() is None, log.read_text()[-3000:]
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(200)


def until(holds, most_s):
    end = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < end, f"not after {most_s} s"
        time.sleep(0.2)


def named(process, name):
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ends while it is looked at
            if name in " ".join(one.cmdline()[:1]):
                found.append(one)
    return found


def engines(process):
    """Engines that are up: those that have a worker."""
    found = []
    for one in named(process, "EngineCore"):
        with contextlib.suppress(psutil.Error):
            found += [one] if one.children() else []
    return found


@pytest.mark.slow
def test_the_suite_of_the_single_server_passes(deployed):
    _, url = deployed
    # In the order of the whole suite: the first one counts what nobody has asked about before.
    wanted = ("caching", "interactions", "malformed", "openai_client", "refused")
    files = [f"tests/integration/test_{name}.py" for name in wanted]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files],
        cwd=ROOT,
        env={**os.environ, "MOLTC_TEST_URL": url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


class Asking:
    """Clients that ask again and again, and never try again."""

    def __init__(self, url):
        self.url, self.over, self.statuses = url, threading.Event(), []

    def ask(self):
        with httpx.Client(base_url=self.url, timeout=300) as client:
            while not self.over.is_set():
                body = {"task": "solvation", "pairs": [[random.choice(FIRST), "O"]]}
                answer = client.post("/v1/interactions", json=body)
                self.statuses.append(answer.status_code)

    def __enter__(self):
        self.threads = [threading.Thread(target=self.ask) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["EngineCore", "ServeReplica:moltc"])
def test_what_dies_is_replaced_and_no_request_fails(deployed, what):
    process, url = deployed
    before = {one.pid for one in engines(process)}
    with Asking(url) as asking:
        until(lambda: len(asking.statuses) > 20, 60)
        named(process, what)[0].send_signal(signal.SIGKILL)
        until(
            lambda: len(engines(process)) == 2 and {one.pid for one in engines(process)} != before,
            300,
        )
        count = len(asking.statuses)
        until(lambda: len(asking.statuses) > count + 20, 60)
    assert set(asking.statuses) == {200}


@pytest.mark.slow
def test_at_sigterm_what_is_in_flight_is_answered_and_all_of_it_ends(deployed):
    process, url = deployed
    family = psutil.Process(process.pid).children(recursive=True)
    answers = []

    def ask():
        pairs = [["C" * length, "O" * 3] for length in range(1, 200)] * 5
        body = {"task": "solvation", "pairs": pairs, "constrained": False, "max_tokens": 60}
        answers.append(httpx.post(f"{url}/v1/interactions", json=body, timeout=300))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(2)
    assert not answers
    process.send_signal(signal.SIGTERM)
    thread.join()
    assert answers[0].status_code == 200
    assert len(answers[0].json()["data"]) == 995
    assert process.wait(120) == 0
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
