"""Flags that `moltc serve` adds for the adapters of a folder."""

import json
import logging

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.models import create_checkpoint
from moltc_vllm.plugin.launcher import on_cpu, parse, server_arguments
from tests.adapters import write_adapter

EMPTY_SLOTS = int(on_cpu())  # one slot stays empty on CPU


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "adapted"
    create_checkpoint("tiny", folder)
    write_adapter(folder, "ddi", ["q_proj"], rank=4)
    write_adapter(folder, "solvation", ["q_proj"], rank=20)
    return folder


@pytest.fixture
def user_adapter(tmp_path, folder):
    """Write an adapter of the user's own outside the served folder."""
    create_checkpoint("tiny", tmp_path / "c")
    return write_adapter(tmp_path / "c", "other", ["fc1"], rank=40)


def parse_serve(folder, *arguments):
    """Parse the arguments with vLLM's own parser."""
    return parse([str(folder), *map(str, arguments)])[1]


def adapter_names(arguments):
    return [module.name for module in arguments.lora_modules or []]


def limits(arguments):
    return arguments.max_lora_rank, arguments.max_loras, arguments.max_cpu_loras


def test_folder_adapters_are_served_under_model_name(folder):
    arguments = parse_serve(folder)
    assert arguments.enable_lora
    assert adapter_names(arguments) == [f"{folder}:ddi", f"{folder}:solvation"]
    assert [module.path for module in arguments.lora_modules] == [
        str(folder / "adapters" / name) for name in ("ddi", "solvation")
    ]
    assert limits(arguments) == (32, 2 + EMPTY_SLOTS, 2 + EMPTY_SLOTS)
    for flags in (
        ["--served-model-name", "a", "b"],
        ["--served-model-name=a"],
        ["--served_model_name", "a"],
    ):
        assert adapter_names(parse_serve(folder, *flags)) == ["a:ddi", "a:solvation"]


def test_folder_without_adapters_needs_no_flags(tiny):
    assert not any("lora" in argument for argument in server_arguments([str(tiny)]))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--max-loras", "7"], (32, 7, 7)),
        (["--max-loras=1"], (32, 1, 2 + EMPTY_SLOTS)),
        (["--max-cpu-loras", "1"], (32, 1, 1)),
        (["--max-cpu-loras", "9"], (32, 2 + EMPTY_SLOTS, 9)),
        (["--max-lora-rank", "64"], (64, 2 + EMPTY_SLOTS, 2 + EMPTY_SLOTS)),
        (["--enable-lora"], (32, 2 + EMPTY_SLOTS, 2 + EMPTY_SLOTS)),
    ],
)
def test_user_limits_override_ours_consistently(folder, flags, expected):
    arguments = parse_serve(folder, *flags)
    assert limits(arguments) == expected
    assert arguments.max_cpu_loras >= arguments.max_loras  # else vLLM refuses
    assert len(adapter_names(arguments)) == 2


@pytest.mark.skipif(not on_cpu(), reason="a defect of vLLM's CPU build")
def test_too_few_slots_log_a_warning(folder, caplog):
    with caplog.at_level(logging.WARNING):
        server_arguments([str(folder)])
        server_arguments([str(folder), "--max-loras", "3"])
        assert caplog.text == ""
        server_arguments([str(folder), "--max-loras", "2"])
    assert "--max-loras 3 is safe" in caplog.text


def test_adapters_can_be_disabled(folder, tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text("enable-lora: false\n")
    for flags in (["--no-enable-lora"], ["--no-enable_lora"], ["--config", path]):
        arguments = parse_serve(folder, *flags)
        assert not arguments.enable_lora
        assert adapter_names(arguments) == []
        assert arguments.max_loras == 1


def test_user_adapters_are_added(folder, user_adapter):
    as_json = json.dumps({"name": "x", "path": str(user_adapter), "base_model_name": "m"})
    for value, name in ((f"mine={user_adapter}", "mine"), (as_json, "x")):
        flags = ["--served-model-name", "m", "--lora-modules", value, "--port", "8123"]
        arguments = parse_serve(folder, *flags)
        assert adapter_names(arguments) == ["m:ddi", "m:solvation", name]
        assert arguments.lora_modules[-1].path == str(user_adapter)
        assert limits(arguments) == (64, 3 + EMPTY_SLOTS, 3 + EMPTY_SLOTS)
        assert arguments.port == 8123


def test_user_adapters_work_without_folder_adapters(tiny, user_adapter):
    arguments = parse_serve(tiny, "--lora-modules", f"mine={user_adapter}")
    assert arguments.enable_lora
    assert adapter_names(arguments) == ["mine"]
    assert limits(arguments) == (64, 1 + EMPTY_SLOTS, 1 + EMPTY_SLOTS)


def test_user_adapter_replaces_folder_adapter_of_same_name(folder, user_adapter):
    arguments = parse_serve(
        folder, "--served-model-name=m", "--lora-modules", f"m:ddi={user_adapter}"
    )
    assert adapter_names(arguments) == ["m:solvation", "m:ddi"]
    assert arguments.lora_modules[-1].path == str(user_adapter)


def test_adapters_in_configuration_file_are_added(folder, user_adapter, tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text(
        f"served-model-name: m\nlora-modules:\n  - mine={user_adapter}\n"
        "max-loras: 9\nmax_cpu_loras: 11\n"
    )
    arguments = parse_serve(folder, "--config", path)
    assert adapter_names(arguments) == ["m:ddi", "m:solvation", "mine"]
    assert limits(arguments) == (64, 9, 11)
    # The command line overrides the file, as in vLLM.
    arguments = parse_serve(
        folder, "--config", path, "--lora-modules", f"yours={user_adapter}", "--max-loras", "5"
    )
    assert adapter_names(arguments) == ["m:ddi", "m:solvation", "yours"]
    assert limits(arguments) == (64, 5, 11)


def test_malformed_value_is_rejected_by_vllm(folder, capsys):
    with pytest.raises(SystemExit):
        parse_serve(folder, "--lora-modules", "nonsense")
    assert "Invalid JSON format for --lora-modules: nonsense" in capsys.readouterr().err


def test_adapter_name_may_have_any_character(tmp_path):
    create_checkpoint("tiny", tmp_path / "a=b, c")
    write_adapter(tmp_path / "a=b, c", 'd="e"', ["q_proj"])
    arguments = parse_serve(tmp_path / "a=b, c")
    assert adapter_names(arguments) == [f'{tmp_path}/a=b, c:d="e"']
    assert arguments.lora_modules[0].path == f'{tmp_path}/a=b, c/adapters/d="e"'


@pytest.mark.parametrize(
    ("change", "flags", "reason"),
    [
        ({"use_dora": True}, [], "adapter 'ddi': use_dora is set"),
        ({"target_modules": ["gate_proj"]}, [], "adapter 'ddi': target module 'gate_proj'"),
        ({}, ["--max-lora-rank", "1"], "adapter 'm:ddi' has rank 4, and --max-lora-rank is 1"),
    ],
)
def test_bad_adapter_is_reported_on_one_line_before_start(tmp_path, change, flags, reason):
    create_checkpoint("tiny", tmp_path / "c")
    path = write_adapter(tmp_path / "c", "ddi", ["q_proj"]) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    arguments = ["serve", str(tmp_path / "c"), "--served-model-name", "m", *flags]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
