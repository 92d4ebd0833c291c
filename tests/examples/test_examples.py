"""The scripts and notebooks in examples/ run to their end.

tests/docs/test_executed_blocks.py runs the one that needs a server, because it has one.
"""

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.blocks import ROOT

EXAMPLES = ROOT / "examples"


def run(script, *arguments, folder):
    completed = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    return completed.stdout


def test_every_example_is_tested():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {"predict.py", "screen_library.py", "openai_client.py", "finetune.py"}
    assert len(list(EXAMPLES.glob("*.ipynb"))) == 2


def test_predict_prints_two_answers(tmp_path):
    lines = run("predict.py", folder=tmp_path).splitlines()
    answers = [line.split() for line in lines if "kcal/mol" in line]
    assert len(answers) == 2
    assert all(-30 < float(answer[0]) < 10 for answer in answers)


def test_screen_library_prints_the_matrix_and_resumes(tmp_path):
    output = run("screen_library.py", "--engine", "torch", "--out", "result", folder=tmp_path)
    assert "caffeine" in output
    assert "toluene" in output
    assert (tmp_path / "result" / "report.html").stat().st_size > 10_000
    again = run("screen_library.py", "--engine", "torch", "--out", "result", folder=tmp_path)
    assert again == output


@pytest.mark.slow
def test_finetune_trains_and_evaluates(tmp_path):
    from tests.paths import data_dir

    data = data_dir()
    output = run("finetune.py", "--data", data, "--out", "run", "--steps", 3, folder=tmp_path)
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()
    assert "rmse" in output.lower()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_notebook_runs(name):
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert "ok" in printed
