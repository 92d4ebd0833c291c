"""What `moltc serve` adds to vLLM's own flags."""

from moltc_vllm.plugin.launcher import server_arguments


def test_the_folder_comes_first_and_the_users_flags_last():
    arguments = server_arguments(["folder", "--port", "1", "--max-num-seqs=4"])
    assert arguments[0] == "folder"
    assert arguments[-3:] == ["--port", "1", "--max-num-seqs=4"]
    assert arguments[arguments.index("--tokenizer-mode") + 1] == "moltc"
    assert "moltc_vllm.plugin.middleware.MoleculePartMiddleware" in arguments


def test_what_the_user_says_replaces_our_default():
    for said in (["--tokenizer-mode", "hf"], ["--tokenizer-mode=hf"], ["--tokenizer_mode", "hf"]):
        arguments = server_arguments(["folder", *said])
        assert sum(a.replace("_", "-").startswith("--tokenizer-mode") for a in arguments) == 1
    assert "--enforce-eager" not in server_arguments(["folder", "--no-enforce-eager"])
