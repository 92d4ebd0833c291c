"""Flags that `moltc serve` adds to those of the user."""

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
