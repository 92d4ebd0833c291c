"""What the README says can be done, is done."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def block_with(text):
    """The one Python example that has this in it."""
    (block,) = (block for block in blocks("python") if text in block)
    return block


def test_the_first_screen_has_the_two_commands():
    first = README.splitlines()[:45]
    assert any("$ make demo" in line for line in first)
    assert any("make test" in line for line in README.splitlines()[:110])


def test_every_command_exists():
    from typer.main import get_command

    from moltc_vllm.cli import app

    known = get_command(app).commands
    shell = "\n".join(blocks("console"))
    used = set(re.findall(r"^\$ moltc (\w+)", shell, re.MULTILINE))
    wanted = {
        "doctor",
        "serve",
        "predict",
        "evaluate",
        "convert",
        "train",
        "data",
        "screen",
        "deploy",
    }
    assert used == wanted
    assert used <= known.keys()
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([\w-]+)", README)) <= set(targets)


def test_every_command_line_can_be_parsed():
    from typer.main import get_command

    from moltc_vllm.cli import app

    lines = re.findall(r"^\$ (moltc .*)$", "\n".join(blocks("console")), re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        command, words = get_command(app), shlex.split(line, comments=True)
        while hasattr(command, "commands"):
            _, *words = words
            command = command.commands[words[0]]
        command.make_context(words[0], words[1:])


def test_every_task_is_listed():
    from moltc_vllm.tasks import TASKS

    assert all(f"`{name}`" in README for name in TASKS)


def test_every_folder_exists():
    for name in re.findall(r"^\| `((?:moltc_vllm|kernels)/\w+)` \|", README, re.MULTILINE):
        assert (ROOT / name).is_dir()


def test_the_plain_torch_example_runs(tmp_path):
    code = block_with("load_model")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip()


@pytest.mark.slow
def test_the_demo_runs_to_its_end(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "moltc_vllm.cli", "demo", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "24 pairs in" in run.stdout
    assert "syntax: extra open parentheses" in run.stdout
    assert (tmp_path / "report.html").read_text().count("<svg") == 44


def test_the_library_example_runs(tmp_path):
    (tmp_path / "library.smi").write_text("CCO ethanol\nC1CC bad\n" + "CC(N)C\n" * 600)
    script = tmp_path / "example.py"
    script.write_text(block_with("featurize_library"))
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("molecule 'C1CC': syntax") == 1
