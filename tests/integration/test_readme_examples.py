"""The README's examples for clients and for `vllm.LLM`."""

import subprocess
import sys

from tests.test_readme import block_with


def test_the_client_and_offline_examples_run(server, tiny):
    client, offline = block_with("OpenAI("), block_with("LLM(")
    client = client.replace("http://127.0.0.1:8000", server.url).replace("./tiny", "moltc")
    subprocess.run([sys.executable, "-c", client], check=True, capture_output=True)
    # vLLM starts its engine in another process, so the example needs the usual guard.
    script = tiny.parent / "example.py"
    body = "\n".join("    " + line for line in offline.splitlines())
    script.write_text(f"if __name__ == '__main__':\n{body}\n")
    run = subprocess.run(
        [sys.executable, script], cwd=tiny.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
