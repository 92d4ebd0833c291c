"""Flags that `moltc serve` adds to those of the user."""

import json

import pytest

from moltc_vllm.plugin.launcher import server_arguments


def test_server_arguments_begin_with_folder_and_end_with_user_flags():
    arguments = server_arguments(["folder", "--port", "1", "--max-num-seqs=4"])
    assert arguments[0] == "folder"
    assert arguments[-3:] == ["--port", "1", "--max-num-seqs=4"]
    assert arguments[arguments.index("--tokenizer-mode") + 1] == "moltc"
    assert "moltc_vllm.plugin.server.middleware.MoleculeMiddleware" in arguments


def test_user_flag_replaces_default():
    for flags in (["--tokenizer-mode", "hf"], ["--tokenizer-mode=hf"], ["--tokenizer_mode", "hf"]):
        arguments = server_arguments(["folder", *flags])
        names = [argument.replace("_", "-") for argument in arguments]
        assert sum(name.startswith("--tokenizer-mode") for name in names) == 1
    assert "--enforce-eager" not in server_arguments(["folder", "--no-enforce-eager"])


def test_configuration_file_replaces_default(tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text("tokenizer_mode: hf\nenforce-eager: false\n")
    for flag in (["--config", str(path)], [f"--config={path}"]):
        arguments = server_arguments(["folder", *flag])
        assert "--tokenizer-mode" not in arguments
        assert "--enforce-eager" not in arguments
        assert "--mm-processor-cache-gb" in arguments
    assert "--tokenizer-mode" in server_arguments(["folder", "--config", str(tmp_path / "none")])


def test_standardize_becomes_an_override_of_the_checkpoint_configuration():
    for flags in (["--standardize", "cleanup"], ["--standardize=cleanup"]):
        arguments = server_arguments(["folder", "--port", "1", *flags])
        assert "--standardize" not in "".join(arguments)
        assert arguments[-4:] == [
            *("--port", "1", "--hf-overrides", '{"standardization": "cleanup"}'),
        ]


def test_standardize_keeps_other_overrides():
    flags = ["--hf-overrides", '{"max_molecules": 4}', "--standardize", "parent", "--port", "1"]
    arguments = server_arguments(["folder", *flags])
    overrides = json.loads(arguments[arguments.index("--hf-overrides") + 1])
    assert overrides == {"max_molecules": 4, "standardization": "parent"}
    assert arguments.count("--hf-overrides") == 1
    assert arguments[arguments.index("--port") + 1] == "1"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--standardize", "all"], "'all' is not one of as-drawn, cleanup, parent"),
        (["--standardize"], "'' is not one of"),
        (["--standardize", "cleanup", "--hf-overrides", "{"], "--hf-overrides is not JSON"),
        (["--standardize", "cleanup", "--hf-overrides", "[]"], "does not hold a JSON object"),
    ],
)
def test_wrong_standardize_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        server_arguments(["folder", *flags])
