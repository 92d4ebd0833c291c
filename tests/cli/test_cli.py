"""Commands without a server: init, serve, predict, doctor, help and version."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from moltc_vllm._version import __version__
from moltc_vllm.cli import app

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_init_writes_a_folder_but_does_not_overwrite_one(tmp_path):
    result = run("init", "tiny", tmp_path / "c")
    assert result.exit_code == 0
    assert "untrained" in result.output
    assert json.loads((tmp_path / "c" / "config.json").read_text())["model_type"] == "moltc"
    repeated = run("init", "tiny", tmp_path / "c")
    assert repeated.exit_code == 2
    assert "exists and is not empty" in repeated.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["init", "huge", "x"], "unknown preset 'huge'"),
        (["init", "galactica-30b", "x"], "30.0 billion random weights"),
        (["init", "tiny", "x", "--language-model", "nowhere"], "nowhere is not a folder"),
        (["init", "tiny", "x", "--projectors", "many"], "'many' is not one of"),
        (["serve", "nowhere"], "nowhere is not a checkpoint folder"),
        (["predict", "--task", "solvatoin", "C", "O"], "Did you mean 'solvation'"),
        (["predict", "--task", "ddi", "C"], "takes 2 molecule(s)"),
        (["predict", "--task", "ddi", "C", "O", "--model", "nowhere"], "not a checkpoint folder"),
    ],
)
def test_invalid_input_is_reported_on_one_line(tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_predict_answers_with_torch_engine(tiny):
    arguments = ["predict", "--task", "solvation", "CCO", "O", "--model", tiny, "--engine", "torch"]
    answer = json.loads(run(*arguments, "--json").stdout)
    assert answer["status"] == "ok"
    assert answer["unit"] == "kcal/mol"
    assert f"{answer['value']:g} kcal/mol" in run(*arguments).stdout
    failed = run(
        "predict", "--task", "solvation", "C1CC", "O", "--model", tiny, "--engine", "torch"
    )
    assert failed.exit_code == 1
    assert "bad_molecule: molecule 'C1CC'" in failed.stdout


def test_predict_supports_beams_and_pad_query(published):
    """On published weights each combination of the two options gives another answer."""
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
    # The fixture's answers have at most 24 tokens, these at most 29.
    assert texts[0].startswith(record.raw["greedy"]["text"])
    assert texts[1].startswith(record.raw["batch4"]["greedy"]["text"])
    rejected = run("predict", "--task", "ddi", "C", "O", "--model", published, "--pad-query")
    assert rejected.exit_code == 2
    assert "--pad-query needs `--engine torch`" in rejected.output


def test_help_does_not_import_heavy_packages():
    code = "import sys; from moltc_vllm.cli import app; app(['--help'], standalone_mode=False)"
    code += "; assert not {'torch', 'vllm', 'rdkit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_doctor_finds_no_problems_in_test_environment():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "loads MoltcForConditionalGeneration and MoltcRenderer" in result.output
    assert "no problems found" in result.output


def test_doctor_suggests_a_fix(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    result = run("doctor", "--quick")
    assert result.exit_code == 1
    assert "add moltc,moltc_http to it" in result.output


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_version_is_printed(argument):
    result = run(argument)
    assert result.exit_code == 0
    assert result.stdout == f"{__version__}\n"
