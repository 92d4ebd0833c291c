"""`moltc tasks` lists the tasks of a checkpoint."""

import json

import pytest
from typer.testing import CliRunner

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.cli import app
from moltc_vllm.models.checkpoint import load_config

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["tasks", *(str(argument) for argument in arguments)])


def listed(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return {task["name"]: task for task in json.loads(result.stdout)}


def test_tasks_of_shipped_checkpoint_are_listed():
    found = listed()
    assert set(found) == set(load_config(shipped_checkpoint()).tasks) - {"ddi_side_effects"}
    assert found["ddi"]["answer"] == "no_interaction or interaction"
    assert found["ddi_type"]["answer"] == "one of 86 labels"
    assert found["solvation"]["molecules"] == ["solute", "solvent"]
    assert found["solvation"]["answer"] == "number, kcal/mol"
    assert found["quantum_yield"]["answer"] == "number"


def test_experimental_task_is_listed_with_all(tiny):
    assert "ddi_side_effects" not in listed("--model", tiny)
    found = listed("--model", tiny, "--all")
    assert set(found) == set(load_config(tiny).tasks)
    assert found["ddi_side_effects"]["answer"] == "list out of 963 terms"
    assert found["ddi_side_effects"]["caution"].startswith("experimental: ")
    assert found["ask"]["answer"] == "text"


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_table_has_a_line_per_task(tiny, options):
    result = run("--model", tiny, *options)
    assert result.exit_code == 0, result.output
    lines = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert lines.count("ddi_side_effects") == len(options)
    assert "absorption" in lines
    assert ("1 experimental, shown with --all" in result.stderr) == (not options)


def test_folder_without_checkpoint_is_reported(tmp_path):
    result = run("--model", tmp_path)
    assert result.exit_code == 2
    assert "is not a checkpoint folder" in result.output
