"""The commands that need no server."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_init_writes_a_folder_and_does_not_overwrite(tmp_path):
    result = run("init", "tiny", tmp_path / "c")
    assert result.exit_code == 0
    assert "Untrained" in result.output
    assert json.loads((tmp_path / "c" / "config.json").read_text())["model_type"] == "moltc"
    again = run("init", "tiny", tmp_path / "c")
    assert again.exit_code == 2
    assert "exists and is not empty" in again.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["init", "huge", "x"], "unknown preset 'huge'"),
        (["init", "galactica-30b", "x"], "30.0 billion random weights"),
        (["init", "tiny", "x", "--language-model", "nowhere"], "nowhere is not a folder"),
        (["init", "tiny", "x", "--projectors", "many"], "'many' is none of"),
        (["serve", "nowhere"], "nowhere is not a checkpoint folder"),
        (["predict", "--task", "solvatoin", "C", "O"], "Did you mean 'solvation'"),
        (["predict", "--task", "ddi", "C"], "takes 2 molecule(s)"),
        (["predict", "--task", "ddi", "C", "O", "--model", "nowhere"], "not a checkpoint folder"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_predict_with_plain_torch(tiny):
    arguments = ["predict", "--task", "solvation", "CCO", "O", "--model", tiny, "--engine", "torch"]
    answer = json.loads(run(*arguments, "--json").stdout)
    assert answer["status"] == "ok"
    assert answer["unit"] == "kcal/mol"
    assert f"{answer['value']:g} kcal/mol" in run(*arguments).stdout
    bad = run("predict", "--task", "solvation", "C1CC", "O", "--model", tiny, "--engine", "torch")
    assert bad.exit_code == 1
    assert "bad_molecule: molecule 'C1CC'" in bad.stdout


def test_predict_with_beams_and_from_a_pad(published):
    """On published weights each way of asking has an answer of its own."""
    from tests.golden.fixture import Fixture
    from tests.paths import reference_dir

    record = Fixture(reference_dir()).records[0]
    arguments = ["predict", "--task", "ddi", *record.pair.molecules, "--model", published]
    arguments += ["--engine", "torch", "--json"]
    texts = [
        json.loads(run(*arguments, *options).stdout)["text"]
        for options in ([], ["--pad-query"], ["--beams", "5"], ["--beams", "5", "--pad-query"])
    ]
    assert len(set(texts)) == 4
    # The fixture's answers end after 24 tokens, these after 29, if they do not end before.
    assert texts[0].startswith(record.raw["greedy"]["text"])
    assert texts[1].startswith(record.raw["batch4"]["greedy"]["text"])
    refused = run("predict", "--task", "ddi", "C", "O", "--model", published, "--pad-query")
    assert refused.exit_code == 2
    assert "`--engine torch` only" in refused.output


def test_help_does_not_load_anything_heavy():
    code = "import sys; from moltc_vllm.cli import app; app(['--help'], standalone_mode=False)"
    code += "; assert not {'torch', 'vllm', 'rdkit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_doctor_finds_nothing_to_fix_here():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "loads MoltcForConditionalGeneration and MoltcRenderer" in result.output
    assert "all well" in result.output


def test_doctor_names_the_fix(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    result = run("doctor", "--quick")
    assert result.exit_code == 1
    assert "add moltc,moltc_http to it" in result.output
