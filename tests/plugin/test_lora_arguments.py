"""What `moltc serve` adds for the adapters of a folder."""

import json
import logging
import typing

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.models import create_checkpoint
from moltc_vllm.models.adapters import AdapterError
from moltc_vllm.plugin import lora_arguments
from moltc_vllm.plugin.launcher import on_cpu, parse, server_arguments
from tests.adapters import write_adapter

FREE = int(on_cpu())  # the slot that stays empty


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "adapted"
    create_checkpoint("tiny", folder)
    write_adapter(folder, "ddi", ["q_proj"], rank=4)
    write_adapter(folder, "solvation", ["q_proj"], rank=20)
    return folder


@pytest.fixture
def other(tmp_path, folder):
    """An adapter of the user's own, elsewhere."""
    create_checkpoint("tiny", tmp_path / "c")
    return write_adapter(tmp_path / "c", "other", ["fc1"], rank=40)


def parsed(folder, *arguments):
    """As vLLM's own parser understands it."""
    return parse([str(folder), *map(str, arguments)])[1]


def names(arguments):
    return [module.name for module in arguments.lora_modules or []]


def numbers(arguments):
    return arguments.max_lora_rank, arguments.max_loras, arguments.max_cpu_loras


def test_the_folders_adapters_are_served_under_the_models_name(folder):
    got = parsed(folder)
    assert got.enable_lora
    assert names(got) == [f"{folder}:ddi", f"{folder}:solvation"]
    assert [module.path for module in got.lora_modules] == [
        str(folder / "adapters" / name) for name in ("ddi", "solvation")
    ]
    assert numbers(got) == (32, 2 + FREE, 2 + FREE)
    for said in (
        ["--served-model-name", "a", "b"],
        ["--served-model-name=a"],
        ["--served_model_name", "a"],
    ):
        assert names(parsed(folder, *said)) == ["a:ddi", "a:solvation"]


def test_a_folder_without_adapters_gets_no_flags(tiny):
    assert not any("lora" in argument for argument in server_arguments([str(tiny)]))


def test_every_rank_is_one_that_vllm_allows():
    from vllm.config.lora import MaxLoRARanks

    assert typing.get_args(MaxLoRARanks) == lora_arguments.RANKS
    for rank, allowed in ((1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512)):
        module = lora_arguments.Module("m", None, rank)
        got = lora_arguments.lora_arguments([module], on_cpu=False)
        assert got == {
            "enable_lora": True,
            "max_lora_rank": allowed,
            "max_loras": 1,
            "max_cpu_loras": 1,
        }
    with pytest.raises(AdapterError, match="'m' has rank 513, the largest that vLLM serves 512"):
        lora_arguments.lora_arguments([lora_arguments.Module("m", None, 513)], on_cpu=False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["--max-loras", "7"], (32, 7, 7)),
        (["--max-loras=1"], (32, 1, 2 + FREE)),
        (["--max-cpu-loras", "1"], (32, 1, 1)),
        (["--max-cpu-loras", "9"], (32, 2 + FREE, 9)),
        (["--max-lora-rank", "64"], (64, 2 + FREE, 2 + FREE)),
        (["--enable-lora"], (32, 2 + FREE, 2 + FREE)),
    ],
)
def test_the_users_numbers_win_and_ours_agree_with_them(folder, said, expected):
    got = parsed(folder, *said)
    assert numbers(got) == expected
    assert got.max_cpu_loras >= got.max_loras  # else vLLM refuses
    assert len(names(got)) == 2


@pytest.mark.skipif(not on_cpu(), reason="a defect of vLLM's CPU build")
def test_too_few_slots_are_warned_of(folder, caplog):
    with caplog.at_level(logging.WARNING):
        server_arguments([str(folder)])
        server_arguments([str(folder), "--max-loras", "3"])
        assert caplog.text == ""
        server_arguments([str(folder), "--max-loras", "2"])
    assert "--max-loras 3 is safe" in caplog.text


def test_adapters_can_be_switched_off(folder, tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text("enable-lora: false\n")
    for said in (["--no-enable-lora"], ["--no-enable_lora"], ["--config", path]):
        got = parsed(folder, *said)
        assert not got.enable_lora
        assert names(got) == []
        assert got.max_loras == 1


def test_the_users_own_adapters_are_added(folder, other):
    as_json = json.dumps({"name": "x", "path": str(other), "base_model_name": "m"})
    for value, name in ((f"mine={other}", "mine"), (as_json, "x")):
        said = ["--served-model-name", "m", "--lora-modules", value, "--port", "8123"]
        got = parsed(folder, *said)
        assert names(got) == ["m:ddi", "m:solvation", name]
        assert got.lora_modules[-1].path == str(other)
        assert numbers(got) == (64, 3 + FREE, 3 + FREE)
        assert got.port == 8123


def test_the_users_own_adapters_need_none_of_ours(tiny, other):
    got = parsed(tiny, "--lora-modules", f"mine={other}")
    assert got.enable_lora
    assert names(got) == ["mine"]
    assert numbers(got) == (64, 1 + FREE, 1 + FREE)


def test_the_users_adapter_replaces_ours_of_the_same_name(folder, other):
    got = parsed(folder, "--served-model-name=m", "--lora-modules", f"m:ddi={other}")
    assert names(got) == ["m:solvation", "m:ddi"]
    assert got.lora_modules[-1].path == str(other)


def test_adapters_in_a_configuration_file_are_added(folder, other, tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text(
        f"served-model-name: m\nlora-modules:\n  - mine={other}\nmax-loras: 9\nmax_cpu_loras: 11\n"
    )
    got = parsed(folder, "--config", path)
    assert names(got) == ["m:ddi", "m:solvation", "mine"]
    assert numbers(got) == (64, 9, 11)
    # The command line goes before the file, as in vLLM.
    got = parsed(folder, "--config", path, "--lora-modules", f"his={other}", "--max-loras", "5")
    assert names(got) == ["m:ddi", "m:solvation", "his"]
    assert numbers(got) == (64, 5, 11)


def test_what_cannot_be_read_is_left_for_vllm_to_refuse(folder, capsys):
    with pytest.raises(SystemExit):
        parsed(folder, "--lora-modules", "nonsense")
    assert "Invalid JSON format for --lora-modules: nonsense" in capsys.readouterr().err


def test_a_name_may_have_any_character(tmp_path):
    create_checkpoint("tiny", tmp_path / "a=b, c")
    write_adapter(tmp_path / "a=b, c", 'd="e"', ["q_proj"])
    got = parsed(tmp_path / "a=b, c")
    assert names(got) == [f'{tmp_path}/a=b, c:d="e"']
    assert got.lora_modules[0].path == f'{tmp_path}/a=b, c/adapters/d="e"'


@pytest.mark.parametrize(
    ("change", "said", "reason"),
    [
        ({"use_dora": True}, [], "adapter 'ddi': use_dora is set"),
        ({"target_modules": ["gate_proj"]}, [], "adapter 'ddi': target module 'gate_proj'"),
        ({}, ["--max-lora-rank", "1"], "adapter 'm:ddi' has rank 4, and --max-lora-rank is 1"),
    ],
)
def test_a_bad_adapter_is_one_line_before_anything_starts(tmp_path, change, said, reason):
    create_checkpoint("tiny", tmp_path / "c")
    path = write_adapter(tmp_path / "c", "ddi", ["q_proj"]) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    arguments = ["serve", str(tmp_path / "c"), "--served-model-name", "m", *said]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
