"""The reference pages are generated from the code, and the site builds without a warning."""

import json
import re
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT


def test_generated_pages_describe_what_exists():
    # In a process of its own, because the page of the HTTP API imports vLLM.
    code = "import runpy, json\n"
    code += "module = runpy.run_path('docs/generate_reference.py', run_name='pages')\n"
    code += "print(json.dumps(module['reference_pages']()))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    pages = json.loads(run.stdout.splitlines()[-1])
    assert "## `moltc screen`" in pages["reference/cli.md"]
    assert "`--retry-errors`" in pages["reference/cli.md"]
    assert "## `POST /v1/interactions`" in pages["reference/http-api.md"]
    assert "| `score` |" in pages["reference/http-api.md"]
    assert "| `max_steps` |" in pages["reference/configuration.md"]
    assert "| `shared_cache_mb` |" in pages["reference/configuration.md"]
    assert "`moltc_molecules_encoded_total`" in pages["reference/metrics.md"]
    for name, text in pages.items():
        if name.startswith("reference/"):
            empty = [line for line in text.splitlines() if re.match(r"\| .*\|  \|$", line)]
            assert not empty, f"{name}: entries without a meaning: {empty}"


@pytest.mark.slow
def test_site_builds_strictly(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "site/reference/cli/index.html").is_file()
