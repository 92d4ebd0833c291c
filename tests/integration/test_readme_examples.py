"""The README's examples for clients and for `vllm.LLM`."""

import subprocess
import sys

from tests.test_readme import block_with


def test_the_screen_from_python_runs(tmp_path):
    script = tmp_path / "example.py"
    body = "\n".join("    " + line for line in block_with("moltc_vllm.screen(").splitlines())
    script.write_text(f"if __name__ == '__main__':\n{body}\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith(("CCO ", "CC("))]
    assert sorted(line[:2] for line in lines) == [
        ["CC(=O)O", "O"],
        ["CC(=O)O", "c1ccccc1"],
        ["CCO", "O"],
        ["CCO", "c1ccccc1"],
    ]
    assert all(line[2] == "ok" and -30 < float(line[3]) < 10 for line in lines)


def test_the_client_and_offline_examples_run(server, tmp_path):
    client, offline = block_with("OpenAI("), block_with("LLM(")
    client = client.replace("http://127.0.0.1:8000", server.url).replace("moltc-mini", "moltc")
    subprocess.run([sys.executable, "-c", client], check=True, capture_output=True)
    # vLLM starts its engine in another process, so the example needs the usual guard.
    script = tmp_path / "example.py"
    body = "\n".join("    " + line for line in offline.splitlines())
    script.write_text(f"if __name__ == '__main__':\n{body}\n")
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
