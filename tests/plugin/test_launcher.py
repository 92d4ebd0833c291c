"""What `moltc serve` adds to vLLM's own flags."""

from moltc_vllm.plugin.launcher import server_arguments


def test_the_folder_comes_first_and_the_users_flags_last():
    arguments = server_arguments(["folder", "--port", "1", "--max-num-seqs=4"])
    assert arguments[0] == "folder"
    assert arguments[-3:] == ["--port", "1", "--max-num-seqs=4"]
    assert arguments[arguments.index("--tokenizer-mode") + 1] == "moltc"
    assert "moltc_vllm.plugin.server.middleware.MoleculeMiddleware" in arguments


def test_what_the_user_says_replaces_our_default():
    for said in (["--tokenizer-mode", "hf"], ["--tokenizer-mode=hf"], ["--tokenizer_mode", "hf"]):
        arguments = server_arguments(["folder", *said])
        assert sum(a.replace("_", "-").startswith("--tokenizer-mode") for a in arguments) == 1
    assert "--enforce-eager" not in server_arguments(["folder", "--no-enforce-eager"])


def test_what_a_configuration_file_says_replaces_our_default(tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text("tokenizer_mode: hf\nenforce-eager: false\n")
    for flag in (["--config", str(path)], [f"--config={path}"]):
        arguments = server_arguments(["folder", *flag])
        assert "--tokenizer-mode" not in arguments
        assert "--enforce-eager" not in arguments
        assert "--mm-processor-cache-gb" in arguments
    assert "--tokenizer-mode" in server_arguments(["folder", "--config", str(tmp_path / "none")])
