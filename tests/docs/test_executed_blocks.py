"""Python blocks with the mark ``<!-- test: run -->`` run to their end."""

import subprocess
import sys

import pytest

from moltc_vllm.plugin.server.server_process import ServerProcess
from tests.docs.blocks import ROOT, blocks

SERVED = [block for block in blocks("python") if block.mark == "run with server"]
ALONE = [
    block for block in blocks("python") if block.mark.startswith("run") and block not in SERVED
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server of the shipped checkpoint, which the pages talk about."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    arguments = ["--served-model-name", "moltc-mini"]
    from moltc_vllm.checkpoints.shipped import shipped_checkpoint

    with ServerProcess(shipped_checkpoint(), arguments, log=log, environment=environment) as server:
        yield server.url


def run(text, folder, *arguments):
    script = folder / "example.py"
    script.write_text(text)
    completed = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert completed.stdout.strip()
    return completed.stdout


@pytest.mark.parametrize("block", ALONE, ids=lambda block: block.name)
def test_block_runs(block, tmp_path):
    (tmp_path / "library.smi").write_text("CCO ethanol\nC1CC bad\n" + "CC(N)C\n" * 600)
    output = run(block.text, tmp_path)
    if "library.smi" in block.text:
        assert output.count("molecule 'C1CC': syntax") == 1
    elif "solvation" in block.text and "answer.value" in block.text:
        values = [line.split()[0] for line in output.splitlines() if "kcal/mol" in line]
        assert len(values) == 2
        assert all(-30 < float(value) < 10 for value in values)


@pytest.mark.parametrize("block", SERVED, ids=lambda block: block.name)
def test_block_runs_with_server(block, url, tmp_path):
    run(block.text.replace("http://127.0.0.1:8000", url), tmp_path)


def test_openai_client_example_gets_answers(url, tmp_path):
    script = (ROOT / "examples" / "openai_client.py").read_text()
    output = run(script, tmp_path, "--url", url)
    assert "chat: #Drug1 and #Drug2" in output
    assert "batch: ok" in output
    assert "batch: bad_molecule molecule 'C1CC'" in output
